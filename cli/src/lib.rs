//! The command line: arguments, progress, tables and exit codes, with Docker's habits.
//!
//! It holds no logic that another client of the services would have to repeat. `app` is the root of
//! the arguments, `commands` has one file a command, `clients` the connections to the services and
//! `services` their start and end, `ui` is all that prints, `format` is the template language of
//! `--format`, `values` parses what options take, `partial` is a file that is whole or not there.

mod app;
mod clients;
mod commands;
mod config;
mod docker_config;
mod error;
mod format;
mod inspect;
mod lazy;
mod partial;
mod services;
mod stream;
mod ui;
mod upload;
mod values;

pub use app::main;
