//! What hostile layers become, in every form.

use std::ffi::OsStr;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};

use orlop_proto::error::Failure;
use orlop_store::config::StoreArgs;

use crate::client::Client;
use crate::forms::{Tree, forms};
use crate::manifest::{Manifest, Node};
use crate::service::sha256;
use crate::smith::Tar;

/// An unpacked image, or why it is none.
pub(crate) async fn unpacked(form: StoreArgs, layers: &[Vec<u8>]) -> Result<Merged, Failure> {
    let mut client = Client::start_with(form).await;
    let pairs: Vec<_> = layers
        .iter()
        .map(|layer| (layer.as_slice(), sha256(layer)))
        .collect();
    let image = client.service.image(&pairs);
    let name = client.unpack(&image).await?.name;
    let tree = Tree::of(&client.view("view", &name).await.unwrap());
    let manifest = Manifest::of(tree.path());
    Ok(Merged {
        manifest,
        tree,
        _client: client,
    })
}

/// The merged tree of an image.
pub(crate) struct Merged {
    pub(crate) manifest: Manifest,
    tree: Tree,
    _client: Client,
}

impl Merged {
    #[track_caller]
    pub(crate) fn node(&self, name: &str) -> &Node {
        let found = self.manifest.0.get(OsStr::new(name));
        found.unwrap_or_else(|| panic!("{name} is not there: {:?}", self.manifest.0.keys()))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.manifest.0.contains_key(OsStr::new(name))
    }

    #[track_caller]
    pub(crate) fn holds(&self, name: &str, bytes: &[u8]) {
        assert_eq!(
            fs::read(self.tree.path().join(name)).unwrap(),
            bytes,
            "{name}"
        );
    }

    #[track_caller]
    pub(crate) fn same(&self, one: &str, other: &str) {
        let (one, other) = (&self.node(one).same_as, &self.node(other).same_as);
        assert!(one.is_some() && one == other, "{one:?} {other:?}");
    }
}

/// What is expected of a layer over an optional one below.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) below: Option<Tar>,
    pub(crate) layer: Tar,
    /// Checks what it became; `None` if it must be refused.
    pub(crate) becomes: Option<fn(&Merged)>,
}

pub(crate) fn case(name: &'static str, layer: Tar, becomes: fn(&Merged)) -> Case {
    Case {
        name,
        below: None,
        layer,
        becomes: Some(becomes),
    }
}

pub(crate) fn over(name: &'static str, below: Tar, layer: Tar, becomes: fn(&Merged)) -> Case {
    Case {
        name,
        below: Some(below),
        layer,
        becomes: Some(becomes),
    }
}

pub(crate) fn refused(name: &'static str, layer: Tar) -> Case {
    Case {
        name,
        below: None,
        layer,
        becomes: None,
    }
}

/// Runs all of them in every form.
pub(crate) async fn all_hold(cases: Vec<Case>) {
    for Case {
        name,
        below,
        layer,
        becomes,
    } in cases
    {
        let layers: Vec<_> = below.into_iter().chain([layer]).map(Tar::end).collect();
        for form in forms() {
            match (unpacked(form, &layers).await, becomes) {
                (Ok(merged), Some(check)) => {
                    let held = catch_unwind(AssertUnwindSafe(|| check(&merged)));
                    assert!(held.is_ok(), "{name}, {:?}", form.layers);
                }
                (Ok(_), None) => panic!("{name} is accepted"),
                (Err(error), Some(_)) => panic!("{name}: {error}"),
                (Err(error), None) => {
                    assert_eq!(
                        error.kind,
                        orlop_proto::error::Kind::InvalidArgument,
                        "{name}: {error}"
                    );
                }
            }
        }
    }
}
