//! What the kernel counts of a container's groups, as its files have it.

use std::fs;
use std::path::Path;

use crate::config::Cgroup;

/// The group of a version 1 controller.
pub fn group_of<'a>(groups: &'a [Cgroup], controller: &str) -> Option<&'a Cgroup> {
    groups.iter().find(|group| {
        let names = group.controllers.as_deref().unwrap_or_default();
        names.split(',').any(|name| name == controller)
    })
}

/// A file of a group; nothing where it cannot be read: the container may just have ended.
pub fn read(group: &Path, file: &str) -> String {
    fs::read_to_string(group.join(file)).unwrap_or_default()
}

/// A number by itself.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `name 123` of a file with a line each.
pub fn field(text: &str, name: &str) -> Option<u64> {
    let mut words = text.lines().filter_map(|line| line.split_once(' '));
    let found = words.find(|(key, _)| *key == name);
    found.and_then(|(_, value)| number(value))
}

/// How often the kernel killed something for want of memory.
pub fn oom_kills(groups: &[Cgroup]) -> u64 {
    let unified = groups.iter().find(|group| group.controllers.is_none());
    let text = match group_of(groups, "memory") {
        Some(group) => read(&group.path, "memory.oom_control"),
        None => unified.map_or_else(String::new, |group| read(&group.path, "memory.events")),
    };
    field(&text, "oom_kill").unwrap_or_default()
}
