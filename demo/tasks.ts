/** The task that the producer and the workers share: a name with its schemas. */
import { Task } from "chicory"
import { Schema } from "effect"

/** The result of a task: what a worker found in a file. */
export class Digest extends Schema.Class<Digest>("Digest")({
  bytes: Schema.Int,
  /** The size of the file compressed by gzip, in bytes. */
  gzipped: Schema.Int,
  lines: Schema.Int,
  sha256: Schema.String
}) {}

/** The file could not be read. A waiter in another process gets this same class. */
export class FileUnreadable extends Schema.TaggedError<FileUnreadable>()("FileUnreadable", {
  path: Schema.String,
  /** The reason of the platform's error: `NotFound`, `PermissionDenied`, … */
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} could not be read: ${this.reason}`
  }
}

/** Reads a whole file, and measures it. */
export const DigestFile = Task.make("demo.digest-file", {
  payload: { path: Schema.String },
  success: Digest,
  error: FileUnreadable
})
