"""A client of one store that knows nothing of it but its socket: server reflection tells it the contract.

    pip install grpcio grpcio-reflection
    python docs/client.py /run/orlop/store.sock

With the checked-in contract instead of reflection (it needs `grpcio` and `protobuf` only):

    python docs/client.py /run/orlop/store.sock proto/src/gen/descriptors.bin

docs/store.md explains each step. It may be run again on the same store.
"""

import hashlib
import io
import json
import platform
import subprocess
import sys
import tarfile

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

channel = grpc.insecure_channel(f"unix://{sys.argv[1]}", options=[("grpc.default_authority", "localhost")])


def contract():
    if len(sys.argv) == 2:
        from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
            ProtoReflectionDescriptorDatabase,
        )

        return DescriptorPool(ProtoReflectionDescriptorDatabase(channel))
    pool = DescriptorPool()
    with open(sys.argv[2], "rb") as file:
        for description in FileDescriptorSet.FromString(file.read()).file:
            pool.Add(description)
    return pool


pool = contract()


def message(name, /, **fields):
    return GetMessageClass(pool.FindMessageTypeByName(f"orlop.store.v1.{name}"))(**fields)


def method(service, name):
    found = pool.FindServiceByName(f"orlop.store.v1.{service}").FindMethodByName(name)
    shape = f"{'stream' if found.client_streaming else 'unary'}_{'stream' if found.server_streaming else 'unary'}"
    return getattr(channel, shape)(
        f"/orlop.store.v1.{service}/{name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=GetMessageClass(found.output_type).FromString,
    )


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def put(*blobs, lease=""):
    """Small blobs, durable together when this returns. Their digests."""
    requests = [message("PutManyRequest", digest=sha256(data), data=data, lease=lease) for data in blobs]
    method("Content", "PutMany")(iter(requests))
    return [request.digest for request in requests]


def read(digest, **part):
    chunks = method("Content", "Read")(message("ReadRequest", digest=digest, **part))
    return b"".join(chunk.data for chunk in chunks)


def put_and_read():
    [digest] = put(b"hello")
    print(method("Content", "Stat")(message("StatRequest", digest=digest)))
    print(read(digest).decode(), read(digest, offset=1, length=3).decode())


def find_missing():
    digests = [sha256(b"hello"), sha256(b"never written")]
    answer = method("Content", "FindMissing")(message("FindMissingRequest", digests=digests))
    print("missing:", *answer.missing)


def durable_offset(ingest):
    """How much of a blob the store has, however its last writer ended."""
    try:
        return method("Content", "StatIngest")(message("StatIngestRequest", ingest_id=ingest)).offset
    except grpc.RpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return 0


def write(ingest, data, commit):
    """A blob of any size from where an earlier writer ended; without `commit` it stays unfinished."""
    offset = durable_offset(ingest)
    opened = message("OpenIngest", ingest_id=ingest, offset=offset)
    requests = [message("WriteRequest", open=opened)]
    for start in range(offset, len(data), 1 << 20):
        requests.append(message("WriteRequest", data=data[start : start + (1 << 20)]))
    if commit:
        committed = message("CommitIngest", digest=sha256(data), size=len(data))
        requests.append(message("WriteRequest", commit=committed))
    return method("Content", "Write")(iter(requests))


def resume():
    data = bytes(5_000_000)
    print("interrupted at", write("upload-1", data[:3_000_000], commit=False).offset)
    print("resumed at", durable_offset("upload-1"))
    print("committed", write("upload-1", data, commit=True).digest)


def image():
    """A file tree as an image of one layer. The bytes of its manifest."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        entry = tarfile.TarInfo("etc/motd")
        entry.size = len(b"welcome\n")
        archive.addfile(entry, io.BytesIO(b"welcome\n"))
    layer = tar.getvalue()
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    rootfs = {"type": "layers", "diff_ids": [sha256(layer)]}
    config = json.dumps({"architecture": architecture, "os": "linux", "config": {}, "rootfs": rootfs}).encode()

    def descriptor(kind, data):
        media_type = f"application/vnd.oci.image.{kind}"
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar", layer)],
    }
    manifest = json.dumps(manifest).encode()
    put(layer, config, manifest, lease="example")
    return manifest


def name(manifest):
    """Compare and swap: of two writers who both saw the same, one wins."""
    target = {
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "digest": sha256(manifest),
        "size": len(manifest),
    }
    name = "docker.io/library/example:1"
    try:
        now = method("Images", "Get")(message("GetImageRequest", name=name)).target.digest
        expected = {"digest": now}
    except grpc.RpcError:
        expected = {"absent": True}
    put = method("Images", "Put")
    print("named", put(message("PutImageRequest", name=name, target=target, **expected)).name)
    try:
        put(message("PutImageRequest", name=name, target=target, absent=True))
    except grpc.RpcError as error:
        print("lost the race:", error.code().name)


def mount(manifest):
    """The image's tree, as the host can mount it."""
    unpacked = method("Snapshots", "Unpack")(message("UnpackRequest", digest=sha256(manifest), lease="example"))
    method("Snapshots", "Remove")(message("RemoveSnapshotRequest", key="example-view"))
    view = message("PrepareRequest", key="example-view", parent=unpacked.name, lease="example")
    lower = method("Snapshots", "View")(view).lower
    if len(lower) == 1:
        command = ["mount", "--bind", "-o", "ro", lower[0], "/mnt"]
    else:
        command = ["mount", "-t", "overlay", "-o", f"lowerdir={':'.join(lower)}", "overlay", "/mnt"]
    # In a mount namespace of its own, so that nothing stays.
    script = '"$@" && cat /mnt/etc/motd'
    subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", *command], check=True)


def end():
    """From now on only names and snapshots in use keep what was stored."""
    method("Snapshots", "Remove")(message("RemoveSnapshotRequest", key="example-view"))
    method("Leases", "Delete")(message("DeleteLeaseRequest", id="example"))
    print(method("Maintenance", "Collect")(message("CollectRequest", dry_run=True)))


put_and_read()
find_missing()
resume()
method("Leases", "Put")(message("PutLeaseRequest", id="example", ttl_seconds=3600))
manifest = image()
name(manifest)
sys.stdout.flush()
mount(manifest)
end()
