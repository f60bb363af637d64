/** What the producer and the workers share: one task, as a name with its schemas. */
import { Task } from "chicory"
import { Schema } from "effect"

/** What a worker finds out about a file. */
export class Digest extends Schema.Class<Digest>("Digest")({
  bytes: Schema.Int,
  /** Its size once compressed. */
  gzipped: Schema.Int,
  lines: Schema.Int,
  sha256: Schema.String
}) {}

/** The file could not be read. It comes out of the result as this very class, in whatever process that is read. */
export class FileUnreadable extends Schema.TaggedError<FileUnreadable>()("FileUnreadable", {
  path: Schema.String,
  /** What the file system says: `NotFound`, `PermissionDenied`, … */
  reason: Schema.String
}) {
  override get message(): string {
    return `${this.path} could not be read: ${this.reason}`
  }
}

/** Reads a file from its first to its last byte. */
export const DigestFile = Task.make("demo.digest-file", {
  payload: { path: Schema.String },
  success: Digest,
  error: FileUnreadable
})
