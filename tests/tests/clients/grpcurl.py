"""Does what the `grpcurl … -d JSON … SERVICE/METHOD` commands of a document do, in their order, on the
socket of a service: `python grpcurl.py SOCKET DOCUMENT`. Prints each answer as JSON."""

import json
import re
import shlex
import sys

import grpc
from google.protobuf import json_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

channel = grpc.insecure_channel(f"unix://{sys.argv[1]}", options=[("grpc.default_authority", "localhost")])
pool = DescriptorPool(ProtoReflectionDescriptorDatabase(channel))


def messages(text):
    """JSON values that follow each other."""
    decoder = json.JSONDecoder()
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        yield value
        text = text[end:]


def call(path, text):
    service, name = path.split("/")
    method = pool.FindServiceByName(service).FindMethodByName(name)
    request = GetMessageClass(method.input_type)
    requests = [json_format.ParseDict(value, request()) for value in messages(text)]
    shape = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
    rpc = getattr(channel, shape)(
        f"/{path}",
        request_serializer=lambda request: request.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    answer = rpc(iter(requests) if method.client_streaming else requests[0])
    for message in answer if method.server_streaming else [answer]:
        print(path, json.dumps(json_format.MessageToDict(message)))


commands = re.findall(r"^\$ grpcurl (.* -d .*)$", open(sys.argv[2]).read(), re.MULTILINE)
for command in commands:
    words = shlex.split(command)
    call(words[-1], words[words.index("-d") + 1])
print(len(commands), "commands")
