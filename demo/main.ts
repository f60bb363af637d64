/**
 * The demo: `npm run demo [directory]`.
 *
 * Real work on real files, in real processes, over one SQLite file. This process enqueues a task for each file under
 * the directory (by default the sources of the installed `effect`), and one for a file that does not exist. Two worker
 * processes compute the SHA-256, the gzipped size and the number of lines of each. Once a third of the results is in,
 * one of the workers is killed with SIGKILL in the middle of its tasks; the other takes them over when their lease has
 * run out. The missing file comes back as the typed error that the handler failed with.
 *
 * In the end stand the accounts, drawn up from what was seen; the demo exits with 0 only if they are right.
 *
 * - `tasks.ts`      the task: a name with its schemas
 * - `worker.ts`     a worker process: the task's handler, and a layer that runs it
 * - `main.ts`       the producer
 * - `processes.ts`  starts, kills and dismisses workers; `journal.ts` is what these tell
 * - `accounts.ts`   how it is known that nothing was lost or doubled
 * - `files.ts`, `progress.ts`, `report.ts`, `settings.ts`  what their names say
 */
import { fileURLToPath } from "node:url"
import { NodeRuntime, NodeServices } from "@effect/platform-node"
import { AsyncResult, type TaskFailed } from "chicory"
import { SqliteStore } from "chicory/sqlite"
import {
  Console,
  DateTime,
  Effect,
  type Exit,
  FileSystem,
  Option,
  Path,
  Runtime,
  Schedule,
  Schema,
  Stream
} from "effect"
import { Argument, Command } from "effect/cli"
import * as Accounts from "./audit.ts"
import * as Files from "./files.ts"
import * as Processes from "./processes.ts"
import * as Progress from "./progress.ts"
import * as Report from "./report.ts"
import { concurrency, lease } from "./settings.ts"
import { type Digest, DigestFile, type FileUnreadable } from "./tasks.ts"

/** Fewer files than this, and there may be nothing left to run when a worker is to be killed. */
const fewest = 6 * concurrency

/** The demo cannot go on, or its accounts are not right. The message is all that need be printed. */
class DemoFailed extends Schema.TaggedError<DemoFailed>()("DemoFailed", { message: Schema.String }) {
  override readonly [Runtime.errorReported] = false
}

/** What the producer holds of a task. */
type Handle = AsyncResult.AsyncResult<Digest, FileUnreadable>

/** The outcome of a task, with its typed error caught by name. */
const outcomeOf = (exit: Exit.Exit<Digest, TaskFailed.TaskFailed<FileUnreadable>>) =>
  exit.pipe(
    Effect.map((digest): Accounts.Outcome => Accounts.Outcome.Digested({ digest })),
    Effect.catchReason("TaskFailed", "Failed", ({ error }) =>
      Effect.succeed(Accounts.Outcome.Unreadable({ error }))
    ),
    Effect.catch((failed) => Effect.succeed(Accounts.Outcome.Broken({ failed })))
  )

/**
 * Kills a worker in the middle of its tasks, and gives the ids of these. It is frozen first: what it runs can then be
 * looked at, and does not end in the meantime. Should it run nothing at that very moment, it is thawed, and caught a
 * little later.
 */
const killRunning = Effect.fn("killRunning")(
  function* ({ freeze, kill, thaw, worker }: Processes.WorkerProcess, open: ReadonlyArray<Handle>) {
    yield* freeze
    const records = yield* Effect.forEach(open, AsyncResult.poll, { concurrency: "unbounded" })
    const running = records
      .flatMap(Option.toArray)
      .filter((record) => record.state === "STARTED" && Option.contains(record.worker, worker))
    yield* running.length > 0 ? kill : thaw
    return running.map(({ taskId }) => taskId)
  },
  Effect.uninterruptible,
  Effect.repeat({ schedule: Schedule.spaced("5 millis"), until: (running) => running.length > 0, times: 200 })
)

/** A result, with what its record says at that moment. */
const receive = Effect.fnUntraced(function* (
  taskId: string,
  exit: Exit.Exit<Digest, TaskFailed.TaskFailed<FileUnreadable>>
) {
  const outcome = yield* outcomeOf(exit)
  const record = yield* AsyncResult.poll(DigestFile.result(taskId))
  return { taskId, exit, outcome, record } satisfies Accounts.Received
})

/** Enqueues a task for each path and awaits them all, while a worker is killed on the way. */
const produce = Effect.fn("produce")(function* (
  paths: ReadonlyArray<string>,
  doomed: Processes.WorkerProcess
) {
  const handles = yield* DigestFile.delayAll(paths.map((path) => ({ path })))
  const progress = yield* Progress.make(handles.length)
  const open = new Map(handles.map((handle) => [handle.taskId, handle]))
  const enough = Math.ceil((handles.length * 2) / 3)
  let abandoned: ReadonlyArray<string> = []

  const strike = Effect.gen(function* () {
    abandoned = yield* killRunning(doomed, [...open.values()])
    if (abandoned.length === 0) return
    yield* progress.note(
      `Killed process ${doomed.pid} in the middle of ${abandoned.length} tasks; their lease of ${lease} has to run out`
    )
  })
  const received = yield* AsyncResult.stream(handles).pipe(
    // a task that never ends is found by the accounts, not waited for
    Stream.timeout("1 minute"),
    Stream.mapEffect(([taskId, exit]) => receive(taskId, exit), { concurrency: 16 }),
    Stream.tap(({ taskId }) => {
      open.delete(taskId)
      return Effect.andThen(progress.step, open.size === enough ? strike : Effect.void)
    }),
    Stream.runCollect
  )
  return { handles, received, abandoned }
}, Effect.scoped)

/** Starts two workers, lets them work, and gathers all that there is to know of what they did. */
const gather = Effect.fn("gather")(function* (
  paths: ReadonlyArray<string>,
  missing: string,
  database: string
) {
  const since = yield* DateTime.now
  const startWorker = Processes.start(database)
  const [survivor, doomed] = yield* Effect.all([startWorker, startWorker], { concurrency: 2 })
  yield* Console.log(`Two workers: processes ${survivor.pid} and ${doomed.pid}`)

  const [elapsed, { abandoned, handles, received }] = yield* Effect.timed(produce(paths, doomed))
  yield* survivor.dismiss

  const records = yield* Effect.forEach(handles, AsyncResult.poll, { concurrency: "unbounded" })
  const evidence: Accounts.Evidence = {
    enqueued: new Map(handles.map(({ taskId }, i) => [taskId, paths[i]!])),
    missing,
    received,
    records: new Map(records.flatMap(Option.toArray).map((record) => [record.taskId, record])),
    known: yield* Files.hashes(paths, since),
    abandoned,
    survivor
  }
  return { elapsed, evidence }
})

const demo = Effect.fn("demo")(function* (directory: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path

  const files = yield* Files.under(directory)
  if (files.length < fewest) {
    return yield* new DemoFailed({
      message: `${directory} has ${files.length} files, and the demo takes at least ${fewest}`
    })
  }
  yield* Console.log(`${files.length} files under ${directory}, and one that is missing`)

  // when the scope closes, whatever happens, both go: first the processes, then their database
  const temporary = yield* fs.makeTempDirectoryScoped({ prefix: "chicory-demo-" })
  const missing = path.join(temporary, "no-such-file")
  const database = path.join(temporary, "tasks.db")
  const { elapsed, evidence } = yield* gather([...files, missing], missing, database).pipe(
    Effect.provide(SqliteStore.layer({ filename: database }))
  )

  const accounts = Accounts.drawUp(evidence)
  yield* Console.log(
    [
      "",
      ...Report.files(evidence, (file) => path.relative(directory, file)),
      "",
      ...Report.failures(evidence),
      `${accounts.checked} of ${accounts.results} results checked against the producer's own SHA-256 of the file`,
      Report.speed(evidence, elapsed),
      "",
      Report.accounts(accounts)
    ].join("\n")
  )
  if (accounts.problems.length > 0) {
    return yield* new DemoFailed({
      message: ["The accounts are not right:", ...accounts.problems].join("\n- ")
    })
  }
}, Effect.scoped)

/** The sources of the installed `effect`. */
const effectSources = fileURLToPath(new URL("src", import.meta.resolve("effect/package.json")))

Command.make(
  "demo",
  {
    directory: Argument.Directory("directory", { mustExist: true }).pipe(
      Argument.withDescription("Whose files to read; by default the sources of the installed effect"),
      Argument.withDefault(effectSources)
    )
  },
  ({ directory }) => demo(directory)
).pipe(
  Command.withDescription("Digests every file of a directory, in two workers, one of which is killed"),
  Command.run({ version: "0.1.0" }),
  Effect.provide(NodeServices.layer),
  Effect.tapErrorTag("DemoFailed", ({ message }) => Console.error(message)),
  NodeRuntime.runMain
)
