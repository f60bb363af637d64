/** The files of the demo: lists them, and hashes them in the producer. */
import { createHash } from "node:crypto"
import { type DateTime, Effect, FileSystem, Option, Path, Stream } from "effect"

/** Lists the files under a directory, recursively. */
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
 * Returns the SHA-256 of the files by path, to compare the workers' results with. Leaves out files that cannot be read
 * and files that were written to after `since`.
 */
export const hashes = Effect.fn("hashes")(function* (files: ReadonlyArray<string>, since: DateTime.Utc) {
  const fs = yield* FileSystem.FileSystem
  const sha256 = (file: string) =>
    fs.stream(file).pipe(
      Stream.runFold(
        () => createHash("sha256"),
        (digest, chunk) => digest.update(chunk)
      ),
      Effect.map((digest) => digest.digest("hex"))
    )
  const hash = Effect.fnUntraced(function* (file: string) {
    const digest = yield* sha256(file)
    const { mtime } = yield* fs.stat(file)
    const isUntouched = Option.exists(mtime, (time) => time.getTime() < since.epochMilliseconds)
    return isUntouched ? [[file, digest] as const] : []
  })
  const hashed = yield* Effect.forEach(files, (file) => Effect.orElseSucceed(hash(file), () => []), {
    concurrency: 16
  })
  return new Map(hashed.flat())
})
