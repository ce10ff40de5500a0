//! `Containers`.

use futures_util::StreamExt as _;
use orlop_proto::runtime as wire;
use orlop_proto::runtime::containers_server::Containers as Rpc;
use tonic::{Request, Response, Status, Streaming};

use super::{Answers, attach, convert, copy, exec, logs, stats, status};
use crate::containers::Containers;
use crate::containers::filter::Filters;
use crate::containers::state::Status as State;
use crate::containers::stop::Condition;
use crate::error::Error;
use crate::network::Publishing;
use crate::spec::to_image::Asked;

/// What is done to containers.
#[derive(Debug)]
pub(super) struct Service(pub(super) Containers);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Rpc for Service {
    type LogsStream = Answers<wire::LogsResponse>;
    type AttachStream = Answers<wire::AttachResponse>;
    type ExecStream = Answers<wire::ExecResponse>;
    type RunStream = Answers<wire::AttachResponse>;
    type StatsStream = Answers<wire::StatsResponse>;
    type DiffStream = Answers<wire::DiffContainerResponse>;
    type CopyOutStream = Answers<wire::CopyOutResponse>;
    type ExportStream = Answers<wire::ExportContainerResponse>;

    async fn create(&self, request: Request<wire::CreateRequest>) -> Answer<wire::CreateResponse> {
        let created = self.0.create(request.into_inner(), false).await;
        let created = created.map_err(status)?;
        let record = created.container.record();
        Ok(Response::new(wire::CreateResponse {
            id: record.id.clone(),
            name: record.name.clone(),
            warnings: created.warnings,
            ports: match created.publishing {
                Some(_) => record.config.ports.clone(),
                None => Vec::new(),
            },
            publishing: created.publishing.map(name_of).unwrap_or_default(),
        }))
    }

    async fn start(&self, request: Request<wire::StartRequest>) -> Answer<wire::StartResponse> {
        let wire::StartRequest { id, strict } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let id = container.id.clone();
        if !strict && container.record().state.status == State::Running {
            return Ok(Response::new(wire::StartResponse { id }));
        }
        // Not on this task: a caller that goes away must not leave a container half-started.
        let this = self.0.clone();
        let started = spawned(async move { this.start(&container, None).await.map(drop) }).await;
        match started {
            Err(Error::WrongState { status, .. }) if !strict && status == State::Running => {}
            result => result.map_err(status)?,
        }
        Ok(Response::new(wire::StartResponse { id }))
    }

    async fn stop(&self, request: Request<wire::StopRequest>) -> Answer<wire::StopResponse> {
        let wire::StopRequest {
            id,
            timeout,
            signal,
        } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let (this, id) = (self.0.clone(), container.id.clone());
        let stopped = spawned(async move { this.stop(&container, &signal, timeout).await });
        stopped.await.map_err(status)?;
        Ok(Response::new(wire::StopResponse { id }))
    }

    async fn restart(
        &self,
        request: Request<wire::RestartRequest>,
    ) -> Answer<wire::RestartResponse> {
        let wire::RestartRequest {
            id,
            timeout,
            signal,
        } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let (this, id) = (self.0.clone(), container.id.clone());
        let restarted = spawned(async move { this.restart(&container, &signal, timeout).await });
        restarted.await.map_err(status)?;
        Ok(Response::new(wire::RestartResponse { id }))
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Answer<wire::KillResponse> {
        let wire::KillRequest { id, signal } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        self.0.kill(&container, &signal).await.map_err(status)?;
        let id = container.id.clone();
        Ok(Response::new(wire::KillResponse { id }))
    }

    async fn pause(&self, request: Request<wire::PauseRequest>) -> Answer<wire::PauseResponse> {
        let container = self.0.find(&request.into_inner().id).map_err(status)?;
        let this = self.0.clone();
        let paused = spawned(async move { this.pause(&container).await });
        paused.await.map_err(status)?;
        Ok(Response::new(wire::PauseResponse {}))
    }

    async fn unpause(
        &self,
        request: Request<wire::UnpauseRequest>,
    ) -> Answer<wire::UnpauseResponse> {
        let container = self.0.find(&request.into_inner().id).map_err(status)?;
        let this = self.0.clone();
        let unpaused = spawned(async move { this.unpause(&container).await });
        unpaused.await.map_err(status)?;
        Ok(Response::new(wire::UnpauseResponse {}))
    }

    async fn remove(&self, request: Request<wire::RemoveRequest>) -> Answer<wire::RemoveResponse> {
        let wire::RemoveRequest { id, force, volumes } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let (this, id) = (self.0.clone(), container.id.clone());
        let removed = spawned(async move { this.remove(&container, force, volumes).await });
        removed.await.map_err(status)?;
        Ok(Response::new(wire::RemoveResponse { id }))
    }

    async fn rename(&self, request: Request<wire::RenameRequest>) -> Answer<wire::RenameResponse> {
        let wire::RenameRequest { id, name } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let this = self.0.clone();
        let renamed = spawned(async move { this.rename(&container, name).await });
        renamed.await.map_err(status)?;
        Ok(Response::new(wire::RenameResponse {}))
    }

    async fn update(&self, request: Request<wire::UpdateRequest>) -> Answer<wire::UpdateResponse> {
        let wire::UpdateRequest {
            id,
            resources,
            restart,
        } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let this = self.0.clone();
        let updated = spawned(async move { this.update(&container, resources, restart).await });
        let warnings = updated.await.map_err(status)?;
        Ok(Response::new(wire::UpdateResponse { warnings }))
    }

    async fn inspect(&self, request: Request<wire::InspectRequest>) -> Answer<wire::Container> {
        let request = request.into_inner();
        let container = self.0.find(&request.id).map_err(status)?;
        let mut shown = convert::container(&container);
        if request.size {
            let mut sizes = self.0.sizes();
            shown.size = sizes.of(&container.record()).await.map(convert::size);
        }
        Ok(Response::new(shown))
    }

    async fn list(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Answer<wire::ListContainersResponse> {
        let request = request.into_inner();
        let filters = Filters::parse(&request.filters).map_err(status)?;
        let all = request.all || request.limit > 0 || filters.by_status();
        let most = match request.limit {
            0 => usize::MAX,
            limit => limit as usize,
        };
        let mut records = self.0.records();
        records.retain(|record| (all || record.is_up()) && filters.fits(record));
        records.truncate(most);
        let mut sizes = self.0.sizes();
        let mut containers = Vec::new();
        for record in &records {
            let mut shown = convert::from_record(record, self.0.log_path(&record.id));
            if request.size {
                shown.size = sizes.of(record).await.map(convert::size);
            }
            containers.push(shown);
        }
        Ok(Response::new(wire::ListContainersResponse { containers }))
    }

    async fn wait(&self, request: Request<wire::WaitRequest>) -> Answer<wire::WaitResponse> {
        let wire::WaitRequest { id, condition } = request.into_inner();
        let condition = match condition.as_str() {
            "" | "not-running" => Condition::NotRunning,
            "next-exit" => Condition::NextExit,
            "removed" => Condition::Removed,
            other => {
                let problem = format!("{other:?}: expected not-running, next-exit or removed");
                return Err(status(Error::invalid("condition", problem)));
            }
        };
        let container = self.0.find(&id).map_err(status)?;
        let (exit_code, error) = self.0.wait(&container, condition).await;
        Ok(Response::new(wire::WaitResponse { exit_code, error }))
    }

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Answer<Self::LogsStream> {
        let request = request.into_inner();
        let container = self.0.find(&request.id).map_err(status)?;
        let stream = logs::stream(container, request).await.map_err(status)?;
        Ok(Response::new(stream))
    }

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachRequest>>,
    ) -> Answer<Self::AttachStream> {
        let stream = attach::attach(self.0.clone(), request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn exec(
        &self,
        request: Request<Streaming<wire::ExecRequest>>,
    ) -> Answer<Self::ExecStream> {
        let stream = exec::exec(self.0.clone(), request.into_inner()).await?;
        Ok(Response::new(stream))
    }

    async fn run(&self, request: Request<wire::RunRequest>) -> Answer<Self::RunStream> {
        let create = request.into_inner().create.unwrap_or_default();
        let stream = attach::run(self.0.clone(), create).await?;
        Ok(Response::new(stream))
    }

    async fn resize(&self, request: Request<wire::ResizeRequest>) -> Answer<wire::ResizeResponse> {
        let wire::ResizeRequest { id, size } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let (rows, columns) = attach::window(size).map_err(status)?;
        let resized = self.0.resize(&container, rows, columns).await;
        resized.map_err(status)?;
        Ok(Response::new(wire::ResizeResponse {}))
    }

    async fn top(&self, request: Request<wire::TopRequest>) -> Answer<wire::TopResponse> {
        let wire::TopRequest { id, columns } = request.into_inner();
        let container = self.0.find(&id).map_err(status)?;
        let (titles, rows) = self.0.top(&container, &columns).await.map_err(status)?;
        let processes = rows.into_iter().map(|fields| wire::TopProcess { fields });
        Ok(Response::new(wire::TopResponse {
            titles,
            processes: processes.collect(),
        }))
    }

    async fn stats(&self, request: Request<wire::StatsRequest>) -> Answer<Self::StatsStream> {
        let wire::StatsRequest { ids, stream, all } = request.into_inner();
        let meter = self.0.meter(&ids, all).map_err(status)?;
        Ok(Response::new(stats::stream(meter, stream)))
    }

    async fn diff(&self, request: Request<wire::DiffContainerRequest>) -> Answer<Self::DiffStream> {
        let container = self.0.find(&request.into_inner().id).map_err(status)?;
        let changes = self.0.diff(&container).await.map_err(status)?;
        let answers = changes.map(|change| change.map(convert::change).map_err(status));
        Ok(Response::new(answers.boxed()))
    }

    async fn copy_in(
        &self,
        request: Request<Streaming<wire::CopyInRequest>>,
    ) -> Answer<wire::CopyInResponse> {
        let copied = copy::into_container(self.0.clone(), request.into_inner()).await?;
        Ok(Response::new(copied))
    }

    async fn copy_out(
        &self,
        request: Request<wire::CopyOutRequest>,
    ) -> Answer<Self::CopyOutStream> {
        let stream = copy::out_of_container(self.0.clone(), request.into_inner())?;
        Ok(Response::new(stream))
    }

    async fn export(
        &self,
        request: Request<wire::ExportContainerRequest>,
    ) -> Answer<Self::ExportStream> {
        let container = self.0.find(&request.into_inner().id).map_err(status)?;
        let tar = self.0.export(&container).await.map_err(status)?;
        let answer = |data| wire::ExportContainerResponse { data };
        let answers = tar.map(move |chunk| chunk.map(answer).map_err(status));
        Ok(Response::new(answers.boxed()))
    }

    async fn commit(
        &self,
        request: Request<wire::CommitContainerRequest>,
    ) -> Answer<wire::CommitContainerResponse> {
        let request = request.into_inner();
        let container = self.0.find(&request.id).map_err(status)?;
        let asked = Asked {
            author: request.author,
            message: request.message,
            changes: request.changes,
        };
        let (this, name, pause) = (self.0.clone(), request.name, request.pause);
        let made = spawned(async move { this.commit(&container, &name, asked, pause).await });
        let image_id = made.await.map_err(status)?;
        Ok(Response::new(wire::CommitContainerResponse { image_id }))
    }

    async fn prune(
        &self,
        request: Request<wire::PruneContainersRequest>,
    ) -> Answer<wire::PruneContainersResponse> {
        let filters = Filters::parse(&request.into_inner().filters).map_err(status)?;
        let (ids, bytes) = self.0.prune(|record| filters.fits(record)).await;
        Ok(Response::new(wire::PruneContainersResponse { ids, bytes }))
    }
}

/// Runs to its end even if the caller goes away.
pub(super) async fn spawned<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    let joined = tokio::spawn(work).await;
    joined.unwrap_or(Err(Error::ShuttingDown))
}

fn name_of(publishing: Publishing) -> String {
    match publishing {
        Publishing::Forward => "forward".to_owned(),
        Publishing::Input => "input".to_owned(),
    }
}
