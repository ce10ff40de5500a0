//! What the container finds where: devices, read-only trees, volumes.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::json;

use crate::support::Box;

#[test]
fn devices_are_exactly_those_of_the_specification() {
    let (_, output) = Box::new(&["ls", "/dev"]).run();
    let names: Vec<_> = output.split_whitespace().collect();
    let expected = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(names, expected.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_read_only_root_is_read_only_and_its_volumes_are_not() {
    let mut container =
        Box::shell("touch /x 2>/dev/null || echo refused; touch /v/y && echo written");
    container.spec["root"]["readonly"] = json!(true);
    let volume = container.dir.path().join("volume");
    container.mount(
        json!({"destination": "/v", "type": "bind", "source": volume,
        "options": ["rbind", "rw"]}),
    );
    assert_eq!(container.run().1, "refused\nwritten\n");
    let mut container = Box::shell("touch /v/y 2>/dev/null || echo refused");
    let volume = container.dir.path().join("volume");
    container.mount(
        json!({"destination": "/v", "type": "bind", "source": volume,
        "options": ["rbind", "ro"]}),
    );
    assert_eq!(container.run().1, "refused\n");
}

#[test]
fn b29_a_volume_is_filled_from_the_image_and_from_nowhere_else() {
    for target in ["/../../../../../../etc", "/out"] {
        let mut container = Box::new(&["true"]);
        symlink("/../../../../../../etc", container.lower().join("out")).unwrap();
        let volume = container.dir.path().join("volume");
        container.config.copy_up = vec![(volume.clone(), target.into())];
        assert_eq!(container.run().0, 0);
        let passwd = fs::read_to_string(volume.join("passwd")).unwrap();
        assert!(passwd.contains("1000:x:0:0"), "{passwd}");
        assert_eq!(fs::read_dir(&volume).unwrap().count(), 2);
    }
}

#[test]
fn b37_no_cgroup_can_be_mounted() {
    let (code, output) = Box::shell("mount -t cgroup -o memory x /tmp 2>&1; ls /tmp").run();
    assert_eq!(code, 0);
    assert!(output.contains("permission denied"), "{output}");
    assert_eq!(output.lines().count(), 1, "{output}");
}
