//! Arguments of a command that are declared when that command is what was typed: to declare those of all
//! commands takes longer than most commands do.

use clap::{ArgMatches, Args, Command, Error, FromArgMatches, Id};

/// The arguments `A`, declared when their command is parsed or built.
#[derive(Debug)]
pub(crate) struct Lazy<A>(pub(crate) A);

impl<A: Args> Args for Lazy<A> {
    fn group_id() -> Option<Id> {
        A::group_id()
    }

    fn augment_args(command: Command) -> Command {
        command.defer(A::augment_args)
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.defer(A::augment_args_for_update)
    }
}

impl<A: FromArgMatches> FromArgMatches for Lazy<A> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        A::from_arg_matches(matches).map(Self)
    }

    fn from_arg_matches_mut(matches: &mut ArgMatches) -> Result<Self, Error> {
        A::from_arg_matches_mut(matches).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        self.0.update_from_arg_matches(matches)
    }
}
