//! One file a command, and the two spellings of Docker: `ps` and `container ls`.

mod attach;
mod build;
mod builder;
mod commit;
mod completion;
mod cp;
mod create;
mod diff;
mod down;
mod each;
mod events;
mod exec;
mod export;
mod filters;
mod image_prune;
mod images;
mod import;
mod info;
mod inspect;
mod kill;
mod limits;
mod load;
mod login;
mod logout;
mod logs;
mod network;
mod pause;
mod port;
mod prune;
mod ps;
mod pull;
mod push;
mod rename;
mod restart;
mod rm;
mod rmi;
mod run;
mod save;
mod serve;
mod start;
mod stats;
mod stop;
mod system;
mod tag;
mod top;
mod unpause;
mod up;
mod update;
mod version;
mod volume;
mod wait;

use std::process::ExitCode;

use clap::Subcommand;

use crate::app::Context;
use crate::error::CliError;
use crate::lazy::Lazy;

/// Declares an enum of commands and how each is run.
macro_rules! commands {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident($args:ty) => $run:path,)* }) => {
        #[derive(Debug, Subcommand)]
        $(#[$meta])*
        #[allow(clippy::large_enum_variant, reason = "there is one of it")]
        pub(crate) enum $name {
            $($(#[$variant_meta])* $variant(Lazy<$args>),)*
        }

        impl $name {
            async fn run(self, context: &Context) -> Result<ExitCode, CliError> {
                match self {
                    $(Self::$variant(args) => Box::pin($run(args.0, context)).await,)*
                }
            }
        }
    };
}

commands! {
    /// Everything that can be typed after `orlop`.
    Command {
        Attach(attach::AttachArgs) => attach::run,
        Build(build::BuildArgs) => build::run,
        Builder(Group<BuilderCommand>) => Group::<BuilderCommand>::run,
        Commit(commit::CommitArgs) => commit::run,
        Completion(completion::CompletionArgs) => completion::run,
        Container(Group<ContainerCommand>) => Group::<ContainerCommand>::run,
        Cp(cp::CpArgs) => cp::run,
        Create(create::CreateArgs) => create::run,
        Diff(diff::DiffArgs) => diff::run,
        Down(down::DownArgs) => down::run,
        Events(events::EventsArgs) => events::run,
        Exec(exec::ExecArgs) => exec::run,
        Export(export::ExportArgs) => export::run,
        Image(Group<ImageCommand>) => Group::<ImageCommand>::run,
        Images(images::ImagesArgs) => images::run,
        Import(import::ImportArgs) => import::run,
        Info(info::InfoArgs) => info::run,
        Inspect(inspect::InspectArgs) => inspect::run,
        Kill(kill::KillArgs) => kill::run,
        Load(load::LoadArgs) => load::run,
        Login(login::LoginArgs) => login::run,
        Logout(logout::LogoutArgs) => logout::run,
        Logs(logs::LogsArgs) => logs::run,
        Network(Group<NetworkCommand>) => Group::<NetworkCommand>::run,
        Pause(pause::PauseArgs) => pause::run,
        Port(port::PortArgs) => port::run,
        Ps(ps::PsArgs) => ps::run,
        Pull(pull::PullArgs) => pull::run,
        Push(push::PushArgs) => push::run,
        Rename(rename::RenameArgs) => rename::run,
        Restart(restart::RestartArgs) => restart::run,
        Rm(rm::RmArgs) => rm::run,
        Rmi(rmi::RmiArgs) => rmi::run,
        Run(run::RunArgs) => run::run,
        Save(save::SaveArgs) => save::run,
        Serve(serve::ServeArgs) => serve::run,
        Start(start::StartArgs) => start::run,
        Stats(stats::StatsArgs) => stats::run,
        Stop(stop::StopArgs) => stop::run,
        System(Group<SystemCommand>) => Group::<SystemCommand>::run,
        Tag(tag::TagArgs) => tag::run,
        Top(top::TopArgs) => top::run,
        Unpause(unpause::UnpauseArgs) => unpause::run,
        Up(up::UpArgs) => up::run,
        Update(update::UpdateArgs) => update::run,
        Version(version::VersionArgs) => version::run,
        Volume(Group<VolumeCommand>) => Group::<VolumeCommand>::run,
        Wait(wait::WaitArgs) => wait::run,
    }
}

commands! {
    /// Containers: the long spelling
    #[command(after_help = "Example:\n  orlop container ls --all")]
    ContainerCommand {
        Attach(attach::AttachArgs) => attach::run,
        Commit(commit::CommitArgs) => commit::run,
        Cp(cp::CpArgs) => cp::run,
        Create(create::CreateArgs) => create::run,
        Diff(diff::DiffArgs) => diff::run,
        Exec(exec::ExecArgs) => exec::run,
        Export(export::ExportArgs) => export::run,
        Inspect(inspect::InspectArgs) => inspect::containers,
        Kill(kill::KillArgs) => kill::run,
        Logs(logs::LogsArgs) => logs::run,
        #[command(visible_aliases = ["list", "ps"])]
        Ls(ps::PsArgs) => ps::run,
        Pause(pause::PauseArgs) => pause::run,
        Port(port::PortArgs) => port::run,
        Prune(prune::PruneArgs) => prune::run,
        Rename(rename::RenameArgs) => rename::run,
        Restart(restart::RestartArgs) => restart::run,
        #[command(visible_alias = "remove")]
        Rm(rm::RmArgs) => rm::run,
        Run(run::RunArgs) => run::run,
        Start(start::StartArgs) => start::run,
        Stats(stats::StatsArgs) => stats::run,
        Stop(stop::StopArgs) => stop::run,
        Top(top::TopArgs) => top::run,
        Unpause(unpause::UnpauseArgs) => unpause::run,
        Update(update::UpdateArgs) => update::run,
        Wait(wait::WaitArgs) => wait::run,
    }
}

commands! {
    /// Images: the long spelling
    #[command(after_help = "Example:\n  orlop image ls")]
    ImageCommand {
        Build(build::BuildArgs) => build::run,
        Import(import::ImportArgs) => import::run,
        Inspect(inspect::InspectArgs) => inspect::images,
        Load(load::LoadArgs) => load::run,
        #[command(visible_alias = "list")]
        Ls(images::ImagesArgs) => images::run,
        Prune(image_prune::PruneImagesArgs) => image_prune::run,
        Pull(pull::PullArgs) => pull::run,
        Push(push::PushArgs) => push::run,
        #[command(visible_alias = "remove")]
        Rm(rmi::RmiArgs) => rmi::run,
        Save(save::SaveArgs) => save::run,
        Tag(tag::TagArgs) => tag::run,
    }
}

commands! {
    /// Volumes: directories that outlive containers
    #[command(after_help = "Example:\n  orlop volume ls")]
    VolumeCommand {
        Create(volume::CreateArgs) => volume::create,
        Export(volume::ExportArgs) => volume::export,
        Import(volume::ImportArgs) => volume::import,
        Inspect(volume::InspectArgs) => volume::inspect,
        #[command(visible_alias = "list")]
        Ls(volume::ListArgs) => volume::list,
        Prune(volume::PruneArgs) => volume::prune,
        #[command(visible_alias = "remove")]
        Rm(volume::RemoveArgs) => volume::remove,
    }
}

commands! {
    /// Networks that containers can join
    #[command(after_help = "Example:\n  orlop network ls")]
    NetworkCommand {
        Connect(network::connect::ConnectArgs) => network::connect::connect,
        Create(network::CreateArgs) => network::create,
        Disconnect(network::connect::DisconnectArgs) => network::connect::disconnect,
        Inspect(network::InspectArgs) => network::inspect,
        #[command(visible_alias = "list")]
        Ls(network::ListArgs) => network::list,
        Prune(network::PruneArgs) => network::prune,
        #[command(visible_alias = "remove")]
        Rm(network::RemoveArgs) => network::remove,
    }
}

commands! {
    /// The whole instance: disk usage, clean-up, facts
    #[command(after_help = "Example:\n  orlop system df")]
    SystemCommand {
        Check(system::check::CheckArgs) => system::check::run,
        Df(system::DfArgs) => system::df,
        Events(events::EventsArgs) => events::run,
        Info(info::InfoArgs) => info::run,
        Prune(system::PruneArgs) => system::prune,
    }
}

commands! {
    /// The build cache, and builds
    #[command(after_help = "Example:\n  orlop builder prune")]
    BuilderCommand {
        Build(build::BuildArgs) => build::run,
        Prune(builder::PruneArgs) => builder::prune,
    }
}

// A group of commands: `orlop volume …`. (No doc comment: it would become the description of all.)
#[derive(Debug, clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Group<C: Subcommand> {
    #[command(subcommand)]
    command: C,
}

macro_rules! groups {
    ($($name:ident),*) => {$(
        impl Group<$name> {
            async fn run(self, context: &Context) -> Result<ExitCode, CliError> {
                self.command.run(context).await
            }
        }
    )*};
}
groups!(
    ContainerCommand,
    ImageCommand,
    VolumeCommand,
    NetworkCommand,
    SystemCommand,
    BuilderCommand
);

/// Runs what was typed.
pub(crate) async fn run(command: Command, context: &Context) -> Result<ExitCode, CliError> {
    command.run(context).await
}
