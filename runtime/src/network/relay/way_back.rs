//! How a container's answer to a foreign address comes to the host's own socket: the connection is marked
//! when it leaves the host, packets of it that come back get a mark of their own, and a policy route calls
//! every address with this mark the host's.
//!
//! ```text
//! table ip orlop-relay {
//!   chain there { type filter hook output priority mangle;     meta mark THERE ct mark set THERE }
//!   chain back  { type filter hook prerouting priority mangle; ct mark THERE meta mark set BACK }
//! }
//! ip rule add fwmark BACK lookup BACK;  ip route add local default dev lo table BACK
//! ```
//!
//! The marks are the instance's own, so that no two are in each other's way.

use super::super::error::{NetworkError, Result};
use super::super::family::Family;
use super::super::nft::expression::{Conntrack, Expression, Meta, Register};
use super::super::nft::{self, Batch, ChainType, Hook};
use super::super::route::Routes;

const PRIORITY_MANGLE: i32 = -150;

/// The kernel's part of one instance's relays.
#[derive(Clone, Debug)]
pub(crate) struct WayBack {
    table: String,
    mark: u32,
}

impl WayBack {
    /// Of the instance whose other table has this name; `number` is its own.
    pub(crate) fn new(table: &str, number: u32) -> Self {
        Self {
            table: format!("{table}-relay"),
            // Even, and none of the small numbers, which are people's and the kernel's.
            mark: (number | 0x8000_0000) & !1,
        }
    }

    /// Of packets to a container.
    pub(crate) fn mark(&self) -> u32 {
        self.mark
    }

    /// Of packets that come back; also the number of the routing table.
    fn mark_back(&self) -> u32 {
        self.mark | 1
    }

    /// The name of the packet filter's table.
    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    /// Makes it, also where it is there.
    pub(crate) fn install(&self) -> Result<()> {
        let failed = || NetworkError::kernel("lead containers' answers back to relayed ports");
        let batch = Batch::new(&self.table)
            .add_table()
            .delete_table()
            .add_table();
        let batch = batch
            .add_base_chain("there", ChainType::Filter, Hook::Output, PRIORITY_MANGLE)
            .add_base_chain("back", ChainType::Filter, Hook::Prerouting, PRIORITY_MANGLE);
        let rules = self.rules();
        let batch = rules
            .iter()
            .fold(batch, |batch, (chain, rule)| batch.add_rule(chain, rule));
        batch.commit().map_err(failed())?;
        let mut routes = Routes::open().map_err(failed())?;
        routes.deliver_marked(self.mark_back()).map_err(failed())
    }

    /// Whether the packet filter's part is there.
    pub(crate) fn is_whole(&self) -> Result<bool> {
        let there = nft::count_rules(Family::V4, &self.table);
        let failed = NetworkError::kernel(format!("read nftables table {}", self.table));
        Ok(there.map_err(failed)? == self.rules().len())
    }

    /// Removes it; one that is not there is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        let failed = || NetworkError::kernel("remove the way back to relayed ports");
        let batch = Batch::new(&self.table).add_table().delete_table();
        batch.commit().map_err(failed())?;
        let mut routes = Routes::open().map_err(failed())?;
        routes.forget_marked(self.mark_back()).map_err(failed())
    }

    fn rules(&self) -> [(&'static str, Vec<Expression<'static>>); 2] {
        let is = |mark: u32| Expression::Equal(Register::R0, mark.to_ne_bytes().to_vec());
        let value = |mark: u32| Expression::Value(Register::R0, mark.to_ne_bytes());
        [
            (
                "there",
                vec![
                    Expression::Meta(Meta::Mark, Register::R0),
                    is(self.mark),
                    Expression::SetConntrack(Conntrack::Mark, Register::R0),
                ],
            ),
            (
                "back",
                vec![
                    Expression::Conntrack(Conntrack::Mark, Register::R0),
                    is(self.mark),
                    value(self.mark_back()),
                    Expression::SetMeta(Meta::Mark, Register::R0),
                ],
            ),
        ]
    }
}
