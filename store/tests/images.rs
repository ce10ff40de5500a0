//! What `Images` keeps across a kill.
#![allow(clippy::unwrap_used, reason = "test code")]

#[path = "served/store.rs"]
mod served;

use orlop_proto::store as pb;
use served::Served;
use tonic::Code;

const NAME: &str = "docker.io/library/a:latest";

#[tokio::test]
async fn a_name_and_its_end_survive_a_kill() {
    let served = Served::start().await;
    let target = served.named(NAME, b"layer").await;
    served.named("docker.io/library/b:1", b"other").await;
    for served in [served.after_a_kill().await, served] {
        let get = pb::GetImageRequest { name: NAME.into() };
        let image = served.images().get(get.clone()).await.unwrap().into_inner();
        assert_eq!(image.target.unwrap().digest, target.digest);
        let list = pb::ListImagesRequest::default();
        let page = served.images().list(list).await.unwrap().into_inner();
        assert_eq!(page.images[0].size, 5);
        assert_eq!(page.images[0].labels["a"], "b");
        assert_eq!(page.images.len(), 2);

        let delete = pb::DeleteImageRequest {
            name: NAME.into(),
            expected: String::new(),
        };
        served.images().delete(delete).await.unwrap();
        let served = served.after_a_kill().await;
        let gone = served.images().get(get).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    }
}
