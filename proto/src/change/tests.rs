//! The instructions of `--change`, as Docker understands them.
#![allow(clippy::unwrap_used, reason = "test code")]

use super::*;

fn changed(before: Value, changes: &[&str]) -> Result<Map<String, Value>, ChangeError> {
    let mut config = before.as_object().unwrap().clone();
    let changes: Vec<String> = changes.iter().map(|&change| change.to_owned()).collect();
    apply(&mut config, &changes).map(|()| config)
}

fn made(changes: &[&str]) -> Value {
    Value::Object(changed(json!({"Env": ["A=1", "B=2"]}), changes).unwrap())
}

#[test]
fn every_instruction_has_its_field() {
    let config = made(&[
        "CMD [\"sh\", \"-l\"]",
        "entrypoint run it",
        "EXPOSE 80 53/UDP 8000-8002/tcp",
        "LABEL \"two words\"=\"b c\" k=v",
        "ONBUILD RUN make",
        "STOPSIGNAL SIGINT",
        "USER 1000:10",
        "VOLUME /a /b",
        "VOLUME [\"/c d\"]",
        "WORKDIR /srv",
        "WORKDIR app",
    ]);
    assert_eq!(config["Cmd"], json!(["sh", "-l"]));
    assert_eq!(config["Entrypoint"], json!(["/bin/sh", "-c", "run it"]));
    let ports = json!({"80/tcp": {}, "53/udp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}});
    assert_eq!(config["ExposedPorts"], ports);
    assert_eq!(config["Labels"], json!({"k": "v", "two words": "b c"}));
    assert_eq!(config["OnBuild"], json!(["RUN make"]));
    assert_eq!(config["StopSignal"], json!("SIGINT"));
    assert_eq!(config["User"], json!("1000:10"));
    assert_eq!(config["Volumes"], json!({"/a": {}, "/b": {}, "/c d": {}}));
    assert_eq!(config["WorkingDir"], json!("/srv/app"));
}

#[test]
fn a_variable_keeps_its_place_and_sees_those_before_it() {
    for (change, expected) in [
        ("ENV A=9", json!(["A=9", "B=2"])),
        ("ENV C=${A}$B'$A'\\$A", json!(["A=1", "B=2", "C=12$A$A"])),
        ("ENV C \"d  e\" f", json!(["A=1", "B=2", "C=d  e f"])),
        ("ENV C=x D=\"y z\"", json!(["A=1", "B=2", "C=x", "D=y z"])),
    ] {
        assert_eq!(made(&[change])["Env"], expected, "{change}");
    }
}

#[test]
fn an_entry_point_discards_the_command_of_the_image_only() {
    let before = json!({"Cmd": ["old"]});
    let config = changed(before.clone(), &["ENTRYPOINT [\"x\"]"]).unwrap();
    assert!(!config.contains_key("Cmd"));
    let config = changed(before, &["CMD [\"new\"]", "ENTRYPOINT [\"x\"]"]).unwrap();
    assert_eq!(config["Cmd"], json!(["new"]));
}

#[test]
fn health_checks_have_their_times_in_nanoseconds() {
    let check =
        &made(&["HEALTHCHECK --interval=1m30s --retries=3 CMD curl localhost"])["Healthcheck"];
    assert_eq!(check["Interval"], json!(90_000_000_000_u64));
    assert_eq!(check["Retries"], json!(3));
    assert_eq!(check["Test"], json!(["CMD-SHELL", "curl localhost"]));
    assert_eq!(
        made(&["HEALTHCHECK NONE"])["Healthcheck"]["Test"],
        json!(["NONE"])
    );
}

#[test]
fn what_cannot_be_done_is_an_error_that_names_it() {
    for bad in [
        "RUN x",
        "CMD",
        "",
        "EXPOSE 0",
        "EXPOSE 9-8",
        "EXPOSE 80/icmp",
        "ENV =x",
        "ENV A=\"open",
        "ENV A=${B:-x}",
        "ONBUILD FROM scratch",
        "HEALTHCHECK --often=1s CMD x",
        "HEALTHCHECK --interval=soon CMD x",
        "USER a b",
        "LABEL alone",
    ] {
        let error = changed(json!({}), &[bad]).unwrap_err();
        assert!(error.to_string().contains(&format!("{bad:?}")), "{error}");
    }
    let many = vec!["USER x"; CHANGES_MAX + 1];
    assert!(changed(json!({}), &many).is_err());
}
