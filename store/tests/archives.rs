//! What a hostile archive leaves on the disk.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use orlop_proto::store as pb;
use served::Served;
use tonic::{Code, Status};

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        let name = &mut header.as_old_mut().name;
        name[..path.len().min(100)].copy_from_slice(&path.as_bytes()[..path.len().min(100)]);
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        tar.append(&header, *bytes).unwrap();
    }
    tar.into_inner().unwrap()
}

async fn load(served: &Served, archive: &[u8]) -> Result<pb::LoadResponse, Status> {
    let messages: Vec<_> = archive
        .chunks(100_000)
        .map(|data| pb::LoadRequest {
            data: data.to_vec().into(),
        })
        .collect();
    let response = served.archives().load(tokio_stream::iter(messages)).await?;
    Ok(response.into_inner())
}

#[tokio::test]
async fn a4_g8_i2_a_hostile_archive_leaves_no_files() {
    let served = Served::start().await;
    for bad in [
        tar(&[("l", b"layer"), ("../../x", b"x")]),
        tar(&[("l", b"layer"), ("manifest.json", b"not json")]),
        tar(&[("l", b"layer")])[..700].to_vec(),
    ] {
        let error = load(&served, &bad).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error}");
    }
    assert!(served.store.content.list().unwrap().is_empty());
    let left = std::fs::read_dir(served.state().join("tmp")).unwrap();
    assert_eq!(left.count(), 0);
}
