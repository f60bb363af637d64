/**
 * The demo: `npm run demo [directory]`.
 *
 * Runs tasks on real files, in real processes, over one SQLite file. This process enqueues a task for each file under
 * the directory (by default the sources of the installed `effect`), and one for a file that does not exist. Two worker
 * processes compute the SHA-256, the gzipped size and the number of lines of each. Once a third of the results has
 * arrived, one of the workers is killed with SIGKILL while it runs tasks; the other takes them over when their lease has
 * lapsed. The missing file comes back as the typed error that the handler failed with.
 *
 * The demo ends with an audit of every task, and exits with 0 only if the audit passes.
 *
 * - `tasks.ts`         the task: a name with its schemas
 * - `worker.ts`        a worker process: the task's handler, and a layer that runs it
 * - `main.ts`          the producer
 * - `processes.ts`     starts, kills and drains workers; `workerEvents.ts` has the events that they report
 * - `audit.ts`         shows that nothing was lost or doubled
 * - `files.ts`, `progress.ts`, `report.ts`, `settings.ts`
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
import * as Audit from "./audit.ts"
import * as Files from "./files.ts"
import * as Processes from "./processes.ts"
import * as Progress from "./progress.ts"
import * as Report from "./report.ts"
import { concurrency, lease } from "./settings.ts"
import { type Digest, DigestFile, type FileUnreadable } from "./tasks.ts"

/** With fewer files than this, no task may be running when a worker is to be killed. */
const minFiles = 6 * concurrency

/** The demo cannot continue, or its audit failed. Only the message is printed. */
class DemoFailed extends Schema.TaggedError<DemoFailed>()("DemoFailed", { message: Schema.String }) {
  override readonly [Runtime.errorReported] = false
}

/** The producer's handle on a task. */
type Handle = AsyncResult.AsyncResult<Digest, FileUnreadable>

/** Returns the outcome of a task, with its typed error caught by name. */
const outcomeOf = (exit: Exit.Exit<Digest, TaskFailed.TaskFailed<FileUnreadable>>) =>
  exit.pipe(
    Effect.map((digest): Audit.Outcome => Audit.Outcome.Digested({ digest })),
    Effect.catchReason("TaskFailed", "Failed", ({ error }) =>
      Effect.succeed(Audit.Outcome.Unreadable({ error }))
    ),
    Effect.catch((failed) => Effect.succeed(Audit.Outcome.Broken({ failed })))
  )

/**
 * Kills a worker while it runs tasks, and returns their ids. The worker is frozen first, so that its tasks can be read
 * and do not end meanwhile. If it runs none at that moment, it is thawed, and tried again a little later.
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

/** Reads the record of a task whose result arrived. */
const receive = Effect.fnUntraced(function* (
  taskId: string,
  exit: Exit.Exit<Digest, TaskFailed.TaskFailed<FileUnreadable>>
) {
  const outcome = yield* outcomeOf(exit)
  const record = yield* AsyncResult.poll(DigestFile.result(taskId))
  return { taskId, exit, outcome, record } satisfies Audit.Received
})

/** Enqueues a task for each path and awaits all of them; kills a worker meanwhile. */
const produce = Effect.fn("produce")(function* (
  paths: ReadonlyArray<string>,
  victim: Processes.WorkerProcess
) {
  const handles = yield* DigestFile.delayAll(paths.map((path) => ({ path })))
  const progress = yield* Progress.make(handles.length)
  const open = new Map(handles.map((handle) => [handle.taskId, handle]))
  const killAt = Math.ceil((handles.length * 2) / 3)
  let abandoned: ReadonlyArray<string> = []

  const killVictim = Effect.gen(function* () {
    abandoned = yield* killRunning(victim, [...open.values()])
    if (abandoned.length === 0) return
    yield* progress.note(
      `Killed process ${victim.pid} while it ran ${abandoned.length} tasks; their lease of ${lease} has to lapse`
    )
  })
  const received = yield* AsyncResult.stream(handles).pipe(
    // the audit finds a task that never ends; it is not waited for
    Stream.timeout("1 minute"),
    Stream.mapEffect(([taskId, exit]) => receive(taskId, exit), { concurrency: 16 }),
    Stream.tap(({ taskId }) => {
      open.delete(taskId)
      return Effect.andThen(progress.step, open.size === killAt ? killVictim : Effect.void)
    }),
    Stream.runCollect
  )
  return { handles, received, abandoned }
}, Effect.scoped)

/** Starts two workers, produces, and collects the input of the audit. */
const gather = Effect.fn("gather")(function* (
  paths: ReadonlyArray<string>,
  missing: string,
  database: string
) {
  const since = yield* DateTime.now
  const startWorker = Processes.start(database)
  const [survivor, victim] = yield* Effect.all([startWorker, startWorker], { concurrency: 2 })
  yield* Console.log(`Two workers: processes ${survivor.pid} and ${victim.pid}`)

  const [elapsed, { abandoned, handles, received }] = yield* Effect.timed(produce(paths, victim))
  yield* survivor.drain

  const records = yield* Effect.forEach(handles, AsyncResult.poll, { concurrency: "unbounded" })
  const evidence: Audit.Evidence = {
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
  if (files.length < minFiles) {
    return yield* new DemoFailed({
      message: `${directory} has ${files.length} files, and the demo takes at least ${minFiles}`
    })
  }
  yield* Console.log(`${files.length} files under ${directory}, and one that is missing`)

  // closing the scope ends the processes first, and then removes their database
  const temporary = yield* fs.makeTempDirectoryScoped({ prefix: "chicory-demo-" })
  const missing = path.join(temporary, "no-such-file")
  const database = path.join(temporary, "tasks.db")
  const { elapsed, evidence } = yield* gather([...files, missing], missing, database).pipe(
    Effect.provide(SqliteStore.layer({ filename: database }))
  )

  const audit = Audit.audit(evidence)
  yield* Console.log(
    [
      "",
      ...Report.files(evidence, (file) => path.relative(directory, file)),
      "",
      ...Report.failures(evidence),
      `${audit.checked} of ${audit.results} results checked against the producer's own SHA-256 of the file`,
      Report.speed(evidence, elapsed),
      "",
      Report.audit(audit)
    ].join("\n")
  )
  if (audit.problems.length > 0) {
    return yield* new DemoFailed({
      message: ["The audit failed:", ...audit.problems].join("\n- ")
    })
  }
}, Effect.scoped)

/** The sources of the installed `effect`. */
const effectSources = fileURLToPath(new URL("src", import.meta.resolve("effect/package.json")))

Command.make(
  "demo",
  {
    directory: Argument.Directory("directory", { mustExist: true }).pipe(
      Argument.withDescription("The directory to read; default: the sources of the installed effect"),
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
