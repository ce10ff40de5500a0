//! Templates as people write them, and mistakes.
#![allow(clippy::unwrap_used, reason = "test code")]

use proptest::prelude::*;
use serde_json::{Value, json};

use super::Template;

fn data() -> Value {
    json!({
        "Id": "abc",
        "Name": "/web",
        "Config": {"Env": ["A=1", "B=2"], "Labels": {"a.b": "c"}, "Cmd": null},
        "State": {"Running": true, "ExitCode": 0, "Pid": 42},
        "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "90/tcp": null},
    })
}

fn render(template: &str) -> String {
    Template::parse(template).unwrap().render(&data()).unwrap()
}

fn error(template: &str) -> String {
    match Template::parse(template) {
        Err(error) => error.to_string(),
        Ok(template) => template.render(&data()).unwrap_err().to_string(),
    }
}

#[test]
fn fields_and_text() {
    assert_eq!(render("x{{.Id}}y {{ .State.Pid }}"), "xabcy 42");
    assert_eq!(render("{{.Id}}\\t{{.Name}}"), "abc\t/web");
    assert_eq!(render("a {{- /* note */ -}} b"), "ab");
    assert_eq!(
        render("{{.Config.Env}} {{.State}}"),
        "[A=1 B=2] map[ExitCode:0 Pid:42 Running:true]"
    );
}

#[test]
fn conditions_and_loops() {
    assert_eq!(render("{{if .State.Running}}up{{else}}down{{end}}"), "up");
    assert_eq!(
        render("{{if eq .State.Pid 1}}a{{else if eq .State.Pid 42}}b{{else}}c{{end}}"),
        "b"
    );
    assert_eq!(render("{{range .Config.Env}}<{{.}}>{{end}}"), "<A=1><B=2>");
    assert_eq!(render("{{range .Config.Cmd}}x{{else}}none{{end}}"), "none");
    assert_eq!(render("{{with .State}}{{.Pid}}{{end}}"), "42");
    assert_eq!(
        render(
            "{{range $p, $c := .Ports}}{{$p}}={{with $c}}{{(index . 0).HostPort}}{{end}};{{end}}"
        ),
        "80/tcp=8080;90/tcp=;"
    );
    assert_eq!(
        render("{{$x := .Id}}{{range .Config.Env}}{{$x}}{{$.Id}}{{end}}"),
        "abcabcabcabc"
    );
}

#[test]
fn functions_and_pipelines() {
    assert_eq!(render("{{json .Config.Env}}"), r#"["A=1","B=2"]"#);
    assert_eq!(render("{{.Id | upper | printf \"%5s|\"}}"), "  ABC|");
    assert_eq!(
        render("{{index .Config.Labels \"a.b\"}}{{index .Config.Labels \"no\"}}"),
        "c"
    );
    assert_eq!(
        render("{{(index (index .Ports \"80/tcp\") 0).HostPort}}"),
        "8080"
    );
    assert_eq!(
        render("{{len .Config.Env}} {{join .Config.Env \",\"}} {{title \"ab cd\"}}"),
        "2 A=1,B=2 Ab Cd"
    );
    assert_eq!(
        render("{{if and .State.Running (not .State.ExitCode)}}ok{{end}}"),
        "ok"
    );
    assert_eq!(
        render("{{or .Config.Cmd \"x\"}} {{slice .Id 1}} {{index (split .Name \"/\") 1}}"),
        "x bc web"
    );
    assert_eq!(
        render("{{printf \"%-4s%03d%q%%\" .Id 7 \"q\"}}"),
        "abc 007\"q\"%"
    );
    assert_eq!(render("{{println .Id}}"), "abc\n");
}

#[test]
fn mistakes_have_a_position() {
    for (template, at, word) in [
        ("{{.Id", 1, "never closed"),
        ("ab{{.Nope}}", 5, ".Nope"),
        ("{{if .Id}}x", 11, "if is never closed"),
        ("{{end}}", 3, "end without"),
        ("{{nope .Id}}", 3, "unknown function nope"),
        ("{{.Id \"x\"}}", 3, "no arguments"),
        ("{{\"x}}", 3, "never closed"),
        ("{{$y}}", 3, "unknown variable"),
        ("{{}}", 3, "value is missing"),
        ("{{define \"x\"}}{{end}}", 3, "not built"),
        ("{{range .Id}}{{end}}", 9, "cannot range"),
    ] {
        let told = error(template);
        assert!(told.contains(word), "{template}: {told}");
        assert!(
            told.starts_with(&format!("at character {at}:")),
            "{template}: {told}"
        );
    }
}

#[test]
fn deep_nesting_is_refused() {
    assert!(error(&"{{if .Id}}".repeat(1000)).contains("deep"));
    assert!(error(&format!("{{{{{}", "(".repeat(10_000))).len() < 200);
}

proptest! {
    #[test]
    fn nothing_panics(text in "(\\{\\{|\\}\\}|-| |\\.|Id|if|range|end|else|with|index|printf|json|\\(|\\)|\"|\\$|:=|,|\\||[0-9]|%|é|\\\\){0,40}") {
        if let Ok(template) = Template::parse(&text) {
            drop(template.render(&data()));
        }
    }

    #[test]
    fn text_without_actions_is_itself(text in "[^{\\\\]{0,40}") {
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.render(&data()).unwrap(), text);
    }
}
