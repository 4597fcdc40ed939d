"""The control messages as protobuf classes.

They are built from the serialized descriptor of proto/localrpc/v1/wire.proto, because generated
code refuses any protobuf runtime older than its protoc. They have a pool of their own, so that a
program may compile the same file for itself. A test compares the descriptor with the .proto file.
"""

from __future__ import annotations

from binascii import a2b_base64

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.message import Message

DESCRIPTOR = a2b_base64(
    "ChZsb2NhbHJwYy92MS93aXJlLnByb3RvEgtsb2NhbHJwYy52MSKfAwoFSGVsbG8SHwoLdmVyc2lvbl9taW4YASAB"
    "KA1SCnZlcnNpb25NaW4SHwoLdmVyc2lvbl9tYXgYAiABKA1SCnZlcnNpb25NYXgSFgoGd2luZG93GAMgASgEUgZ3"
    "aW5kb3cSGwoJcmluZ19zaXplGAQgASgEUghyaW5nU2l6ZRIUCgVhZ2VudBgFIAEoCVIFYWdlbnQSGAoHcmVmdXNh"
    "bBgGIAEoCVIHcmVmdXNhbBIlCg5tZW1vcnlfcmVmdXNhbBgHIAEoCVINbWVtb3J5UmVmdXNhbBIQCgNwaWQYCCAB"
    "KA1SA3BpZBIWCgZtZW1vcnkYCSABKAlSBm1lbW9yeRIhCgxtZW1vcnlfbmFtZXMYCiADKAlSC21lbW9yeU5hbWVz"
    "EhQKBWdvaW5nGAsgASgIUgVnb2luZxIbCglwYWdlX3NpemUYDCABKA1SCHBhZ2VTaXplEhQKBWdyb3VwGA0gASgJ"
    "UgVncm91cBIWCgZ3b3JrZXIYDiABKA1SBndvcmtlchIaCghmZWF0dXJlcxgPIAEoDVIIZmVhdHVyZXMiLgoEUGFp"
    "chIQCgNrZXkYASABKAlSA2tleRIUCgV2YWx1ZRgCIAEoDFIFdmFsdWUiMwoITWV0YWRhdGESJwoFcGFpcnMYASAD"
    "KAsyES5sb2NhbHJwYy52MS5QYWlyUgVwYWlycyJmCgdUcmFpbGVyEhIKBGNvZGUYASABKA1SBGNvZGUSGAoHZGV0"
    "YWlscxgCIAEoCVIHZGV0YWlscxItCghtZXRhZGF0YRgDIAMoCzIRLmxvY2FscnBjLnYxLlBhaXJSCG1ldGFkYXRh"
    "IiAKBkdvYXdheRIWCgZyZWFzb24YASABKAlSBnJlYXNvbmIGcHJvdG8z"
)

_pool = descriptor_pool.DescriptorPool()
_pool.AddSerializedFile(DESCRIPTOR)


def _message(name: str) -> type[Message]:
    found = _pool.FindMessageTypeByName(f"localrpc.v1.{name}")
    return message_factory.GetMessageClass(found)


HelloProto = _message("Hello")
MetadataProto = _message("Metadata")
TrailerProto = _message("Trailer")
GoawayProto = _message("Goaway")
