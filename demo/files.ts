/** The files that the demo works on, as the producer sees them. */
import { createHash } from "node:crypto"
import { type DateTime, Effect, FileSystem, Option, Path, Stream } from "effect"

/** Every file under a directory, however deep. */
export const under = Effect.fn("under")(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const entries = yield* fs.readDirectory(directory, { recursive: true })
  const files = yield* Effect.filter(
    entries.map((entry) => path.join(directory, entry)),
    (entry) =>
      Effect.map(
        Effect.option(fs.stat(entry)),
        Option.exists(({ type }) => type === "File")
      ),
    { concurrency: 16 }
  )
  return files.toSorted()
})

/**
 * The producer's own look at the files, to hold the workers' results against: the SHA-256 of each, by path. Files that
 * it cannot read are left out, and so are those that were written to in the meantime.
 */
export const hashes = Effect.fn("hashes")(function* (files: ReadonlyArray<string>, since: DateTime.Utc) {
  const fs = yield* FileSystem.FileSystem
  const sha256 = (file: string) =>
    fs.stream(file).pipe(
      Stream.runFold(
        () => createHash("sha256"),
        (hash, chunk) => hash.update(chunk)
      ),
      Effect.map((hash) => hash.digest("hex"))
    )
  const look = Effect.fnUntraced(function* (file: string) {
    const digest = yield* sha256(file)
    const { mtime } = yield* fs.stat(file)
    const isUntouched = Option.exists(mtime, (time) => time.getTime() < since.epochMilliseconds)
    return isUntouched ? [[file, digest] as const] : []
  })
  const looked = yield* Effect.forEach(files, (file) => Effect.orElseSucceed(look(file), () => []), {
    concurrency: 16
  })
  return new Map(looked.flat())
})
