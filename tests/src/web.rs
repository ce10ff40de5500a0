//! A web server in a container, and who gets its page.

use crate::Instance;

/// What [`Instance::serve`] has served.
pub const PAGE: &str = "served\n";

impl Instance {
    /// Starts a container of this name, with these options, that serves [`PAGE`] at its port 80.
    #[track_caller]
    pub fn serve(&self, name: &str, options: &[&str]) {
        self.serve_line(name, options, PAGE.trim_end());
    }

    /// The same with a line of one's own.
    #[track_caller]
    pub fn serve_line(&self, name: &str, options: &[&str], line: &str) {
        let script = format!("echo {line} > /index.html; exec httpd -f -p 80 -h /");
        self.run_script_with(name, options, &script);
    }

    /// `orlop port NAME PORT`: where it is published.
    #[track_caller]
    pub fn published(&self, name: &str, port: &str) -> String {
        self.run(&["port", name, port]).success().line()
    }

    /// Whether a container gets the page of the web server at `host`; on a slow machine that takes a while.
    pub fn reaches(&self, container: &str, host: &str) -> bool {
        self.gets_page(container, host, "10")
    }

    /// Whether nothing comes to a container from a web server at `host`.
    pub fn cannot_reach(&self, container: &str, host: &str) -> bool {
        !self.gets_page(container, host, "2")
    }

    fn gets_page(&self, container: &str, host: &str, seconds: &str) -> bool {
        let url = format!("http://{host}/");
        let wget = ["exec", container, "timeout", seconds, "wget", "-qO-", &url];
        self.run(&wget).stdout() == PAGE
    }
}
