//! `orlop.builder.v1.Cache`.

use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use orlop_proto::builder::{
    CacheRecord, CacheUsageRequest, CacheUsageResponse, ExplainCacheRequest, ExplainCacheResponse,
    ListCacheRequest, PruneCacheRequest, PruneCacheResponse, cache_server,
};
use orlop_proto::error::{to_status, unimplemented};
use prost_types::Timestamp;
use tonic::{Request, Response, Status};

use crate::build::Builder;
use crate::cache::Record;

#[derive(Debug)]
pub(super) struct Cache(pub(super) Builder);

impl Cache {
    fn records(&self) -> Result<Vec<Record>, Status> {
        self.0.cache.list().map_err(|error| to_status(&error))
    }
}

fn timestamp(nanos: i64) -> Option<Timestamp> {
    let rest = i32::try_from(nanos.rem_euclid(1_000_000_000)).unwrap_or(0);
    Some(Timestamp {
        seconds: nanos.div_euclid(1_000_000_000),
        nanos: rest,
    })
}

fn message(record: Record) -> CacheRecord {
    CacheRecord {
        created: timestamp(record.created),
        last_used: timestamp(record.last_used),
        key: record.key,
        snapshot: record.snapshot,
        description: record.description,
        bytes: record.bytes,
    }
}

#[tonic::async_trait]
impl cache_server::Cache for Cache {
    type ListStream = BoxStream<'static, Result<CacheRecord, Status>>;

    async fn list(
        &self,
        _: Request<ListCacheRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let records = self
            .records()?
            .into_iter()
            .map(|record| Ok(message(record)));
        Ok(Response::new(stream::iter(records).boxed()))
    }

    async fn usage(
        &self,
        _: Request<CacheUsageRequest>,
    ) -> Result<Response<CacheUsageResponse>, Status> {
        let records = self.records()?;
        let bytes = records
            .iter()
            .map(|record| u64::try_from(record.bytes).unwrap_or(0))
            .sum();
        Ok(Response::new(CacheUsageResponse {
            records: records.len() as u64,
            bytes,
        }))
    }

    async fn prune(
        &self,
        request: Request<PruneCacheRequest>,
    ) -> Result<Response<PruneCacheResponse>, Status> {
        let unused = request.into_inner().unused_for_seconds;
        let records = self.0.cache.prune(unused, &self.0.ports).await;
        let records = records.map_err(|error| to_status(&error))?;
        Ok(Response::new(PruneCacheResponse { records }))
    }

    async fn explain(
        &self,
        _: Request<ExplainCacheRequest>,
    ) -> Result<Response<ExplainCacheResponse>, Status> {
        Err(unimplemented("Cache.Explain"))
    }
}
