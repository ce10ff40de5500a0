//! Scripts of busybox's shell in containers.

use crate::{Instance, Outcome};

impl Instance {
    /// Runs a script to its end in a container with these options, of which nothing is kept.
    #[must_use = "say what was expected of the script"]
    pub fn shell(&self, options: &[&str], script: &str) -> Outcome {
        let command = ["busybox", "sh", "-c", script];
        self.run(&[&["run", "--rm"], options, &command].concat())
    }

    /// Starts a container of this name in the background that runs a script.
    #[track_caller]
    pub fn run_script(&self, name: &str, script: &str) {
        self.run_script_with(name, &[], script);
    }

    /// The same with options.
    #[track_caller]
    pub fn run_script_with(&self, name: &str, options: &[&str], script: &str) {
        let command = ["busybox", "sh", "-c", script];
        let run = ["run", "-d", "--name", name];
        self.run(&[&run, options, &command].concat()).success();
    }

    /// Starts a container of this name that sleeps.
    #[track_caller]
    pub fn run_sleeper(&self, name: &str, options: &[&str]) {
        let run = ["run", "-d", "--name", name];
        let command = ["busybox", "sleep", "1000"];
        self.run(&[&run, options, &command].concat()).success();
    }
}
