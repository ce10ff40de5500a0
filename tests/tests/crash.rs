//! SECURITY section 4.3 and rows 1, 2 and 8 of section 5.2: what the store has acknowledged outlives
//! `kill -9` at any moment and loss of power. `make crash` does the same for longer.
#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use orlop_proto::store::resource::Resource as Held;
use orlop_proto::store::{
    AddResourcesRequest, ListResourcesRequest, PutLeaseRequest, ReleaseResourcesRequest, Resource,
};
use orlop_tests::crash::disk::Place;
use orlop_tests::crash::process::{Clients, Process};
use orlop_tests::crash::{Plan, failpoints, run};
use rustix::fs::{Advice, fadvise};

#[test]
fn nothing_acknowledged_is_lost_at_any_named_moment_nor_at_any_other_nor_with_the_power() {
    let tally = run(&Plan {
        rounds: 1,
        kills: 20,
        power_cuts: 4,
        time: Duration::from_secs(120),
        seed: 7,
        lanes: 4,
        options: Vec::new(),
    });
    println!("{tally}");
    assert!(tally.violations.is_empty(), "{tally}");
    assert!(tally.missed().is_empty(), "never met: {:?}", tally.missed());
    assert_eq!(tally.failpoints.len(), failpoints().len());
    assert_eq!((tally.kills, tally.power_cuts), (20, 4));
}

/// ext4 commits the new length of a file without the bytes, where these go into a block that it has
/// already. What is seen then is what was in that block behind the old end.
#[tokio::test]
async fn a_release_that_was_lost_with_the_power_does_not_come_back_with_the_next_loss_of_power() {
    let place = Place::disk();
    let file = place.root().join("store/leases/l");
    let mut store = started(&place, &[]).await;
    let lease = PutLeaseRequest {
        id: "l".to_owned(),
        ..Default::default()
    };
    store.clients.leases.put(lease).await.unwrap();
    hold(&mut store.clients, "x").await.unwrap();
    let held = fs::read(&file).unwrap();
    release(&mut store.clients, "x").await;
    let line = fs::read(&file).unwrap().split_off(held.len());
    hold(&mut store.clients, "x").await.unwrap();
    store.kill().await;

    append_without_length(&file, &line);
    place.cut_power();
    place.restore_power();
    let mut store = started(&place, &["--failpoint=lease.change.appended".to_owned()]).await;
    let longer = "y".repeat(line.len());
    hold(&mut store.clients, &longer).await.unwrap_err();
    store.kill().await;
    File::create(place.root().join("other"))
        .and_then(|other| other.sync_all())
        .unwrap();
    place.cut_power();
    place.restore_power();

    let mut store = started(&place, &[]).await;
    assert_eq!(held_by(&mut store.clients).await, ["x"]);
    store.kill().await;
}

async fn started(place: &Place, options: &[String]) -> Process {
    let mut store = Process::spawn(place, options);
    store.serves().await.unwrap();
    store
}

fn snapshot(key: &str) -> Vec<Resource> {
    let resource = Some(Held::Snapshot(key.to_owned()));
    vec![Resource { resource }]
}

async fn hold(clients: &mut Clients, key: &str) -> Result<(), tonic::Status> {
    let request = AddResourcesRequest {
        lease: "l".to_owned(),
        resources: snapshot(key),
    };
    clients.leases.add(request).await.map(drop)
}

async fn release(clients: &mut Clients, key: &str) {
    let request = ReleaseResourcesRequest {
        lease: "l".to_owned(),
        resources: snapshot(key),
    };
    clients.leases.release(request).await.unwrap();
}

async fn held_by(clients: &mut Clients) -> Vec<String> {
    let request = ListResourcesRequest {
        lease: "l".to_owned(),
    };
    let mut stream = clients
        .leases
        .list_resources(request)
        .await
        .unwrap()
        .into_inner();
    let mut held = Vec::new();
    while let Some(resource) = stream.message().await.unwrap() {
        held.extend(resource.resource.map(|resource| match resource {
            Held::Blob(name) | Held::Snapshot(name) => name,
        }));
    }
    held
}

/// The bytes reach the disk, and the journal, with the new length, does not.
fn append_without_length(path: &Path, line: &[u8]) {
    let mut file = OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(line).unwrap();
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    std::thread::sleep(Duration::from_millis(200));
}
