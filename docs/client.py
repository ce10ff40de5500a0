"""A client of one Orlop service that knows nothing of it but its socket: server reflection tells it
the contract. `pip install grpcio grpcio-reflection`, then: python client.py /run/orlop/store.sock"""

import hashlib
import sys

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(f"unix://{sys.argv[1]}", options=[("grpc.default_authority", "localhost")])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def message(name, **fields):
    return GetMessageClass(pool.FindMessageTypeByName(f"orlop.store.v1.{name}"))(**fields)


def method(service, name):
    found = pool.FindServiceByName(f"orlop.store.v1.{service}").FindMethodByName(name)
    shape = f"{'stream' if found.client_streaming else 'unary'}_{'stream' if found.server_streaming else 'unary'}"
    return getattr(channel, shape)(
        f"/orlop.store.v1.{service}/{name}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=GetMessageClass(found.output_type).FromString,
    )


data = b"hello"
digest = "sha256:" + hashlib.sha256(data).hexdigest()
print(method("Content", "PutMany")(iter([message("PutManyRequest", digest=digest, data=data)])))
print(method("Content", "Stat")(message("StatRequest", digest=digest)))
for chunk in method("Content", "Read")(message("ReadRequest", digest=digest)):
    print(chunk.data.decode())
