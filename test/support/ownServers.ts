/** Servers that tests start, stop, kill and freeze. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { chownSync, mkdtempSync, rmSync } from "node:fs"
import { rm } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect, Schema, type Scope } from "effect"
import type { ServerUser } from "./serverUser.ts"

/** An error that a server reports, or a missing answer. */
export class ServerError extends Schema.TaggedError<ServerError>()("ServerError", {
  message: Schema.String
}) {}

export const toServerError = (cause: unknown): ServerError =>
  new ServerError({ message: cause instanceof Error ? cause.message : String(cause) })

/** The processes of a server. */
export interface ServerProcess {
  readonly port: number
  /** Kills all processes of the server, as a crash would, and waits until they have ended. */
  readonly kill: Effect.Effect<void>
  /** Shuts the server down in order despite open connections, and waits until it has ended. */
  readonly stop: Effect.Effect<void>
  /** Starts the server again with its port and data, and waits until it answers. */
  readonly start: Effect.Effect<void, ServerError>
  /** Freezes all processes of the server: connections stay open, and no request is answered. */
  readonly freeze: Effect.Effect<void>
  readonly thaw: Effect.Effect<void>
}

/** A server for one test or suite. */
export interface OwnServer extends ServerProcess {
  /** The URL of an administrator. */
  readonly url: string
}

// #region Ports

/** Ports of servers of one kind. */
export interface Ports {
  readonly first: number
  readonly count: number
  /** The offset of a second port. */
  readonly second?: number
}

/**
 * The ranges do not overlap and lie below the ephemeral ports: a client that keeps connecting to an unused ephemeral
 * port may in the end connect to itself.
 */
export const PORTS = {
  networks: { first: 2_000, count: 1_200 },
  probes: { first: 4_000, count: 1_000 },
  rabbitmq: { first: 7_000, count: 1_400, second: 1_400 },
  redis: { first: 10_000, count: 10_000, second: 10_000 },
  postgres: { first: 30_000, count: 2_000 },
  mariadb: { first: 32_000, count: 700 }
} as const satisfies Record<string, Ports>

const isFree = (port: number) =>
  Effect.callback<boolean>((resume) => {
    const probe = createServer()
    probe.once("error", () => resume(Effect.succeed(false)))
    probe.listen(port, "127.0.0.1", () => probe.close(() => resume(Effect.succeed(true))))
  })

/** Finds a port that is free at this moment. */
export const freePort = Effect.fnUntraced(function* ({ count, first, second = 0 }: Ports) {
  while (true) {
    const port = first + Math.floor(Math.random() * count)
    if ((yield* isFree(port)) && (yield* isFree(port + second))) return port
  }
})

// #endregion

// #region Directories

const directories = new Set<string>()

/** Makes a directory, which is removed at the latest when this process ends. */
export const makeDirectory = (kind: string, owner: ServerUser = {}): string => {
  const directory = mkdtempSync(join(tmpdir(), `chicory-${kind}-`))
  directories.add(directory)
  if (owner.uid !== undefined && owner.gid !== undefined) chownSync(directory, owner.uid, owner.gid)
  return directory
}

/** Removes a directory; retries, as a server that was just killed may still write. */
const REMOVAL = { recursive: true, force: true, maxRetries: 5 } as const

const removeDirectory = (directory: string): void => {
  rmSync(directory, REMOVAL)
  directories.delete(directory)
}

/** Makes a directory, which is removed with the scope. */
export const temporaryDirectory = (
  kind: string,
  owner?: ServerUser
): Effect.Effect<string, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => makeDirectory(kind, owner)),
    (directory) =>
      // asynchronous, so that other tests of this process are not blocked
      Effect.promise(() => rm(directory, REMOVAL)).pipe(
        Effect.andThen(Effect.sync(() => directories.delete(directory)))
      )
  )

// #endregion

// #region Processes

/** The signal at which a program ends at once and leaves nothing behind. */
type QuitSignal = "SIGKILL" | "SIGQUIT"

const running = new Map<ChildProcess, QuitSignal>()
// an aborted test run runs no finalizers; vitest ends its processes by this signal
process.once("SIGTERM", () => process.exit())
process.once("exit", () => {
  for (const [child, quit] of running) {
    signalAll(child, "SIGCONT")
    child.kill(quit)
  }
  directories.forEach(removeDirectory)
})

/**
 * Replaces the shell by a program and kills it when its starter has ended in any way: the other end of the shell's
 * input is closed then.
 */
const GUARDED = `(exec 3<&0; (read -r _ <&3; kill -9 $$) >/dev/null 2>&1 &); exec "$@" </dev/null`

/** Options of a program. */
export interface LaunchOptions {
  readonly owner?: ServerUser | undefined
  /** Default: the environment of this process. */
  readonly env?: Readonly<Record<string, string | undefined>> | undefined
  readonly quit?: QuitSignal | undefined
}

/** Starts a program, which ends at the latest with this process. */
export const launch = (
  file: string,
  args: ReadonlyArray<string>,
  { env, owner, quit = "SIGKILL" }: LaunchOptions = {}
): ChildProcess => {
  const child = spawn("sh", ["-c", GUARDED, "sh", file, ...args], {
    ...owner,
    cwd: tmpdir(),
    env: env ?? process.env,
    stdio: ["pipe", "pipe", "pipe"]
  })
  child.stdin?.on("error", () => {})
  if (child.pid !== undefined) running.set(child, quit)
  // not "exit": its child processes, which end after it, hold its output open as well
  child.once("close", () => running.delete(child))
  return child
}

/** Waits until a program and its children have ended. */
const ended = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (!running.has(child)) return resume(Effect.void)
    child.once("close", () => resume(Effect.void))
  })

const signal = (pid: number, name: NodeJS.Signals): void => {
  try {
    process.kill(pid, name)
  } catch {
    // the process has ended
  }
}

/** Lists a server's processes. PostgreSQL has one for each connection, each in its own group. */
const processesOf = (pid: number): ReadonlyArray<number> => {
  const { stdout } = spawnSync("ps", ["-A", "-o", "pid=,ppid="], { encoding: "utf8" })
  const children = stdout.split("\n").flatMap((line) => {
    const [child, parent] = line.trim().split(/\s+/).map(Number)
    return child !== undefined && parent === pid ? [child] : []
  })
  return [pid, ...children]
}

/** Signals all processes of a program. The first one is stopped before its children are listed. */
const signalAll = ({ pid }: ChildProcess, name: NodeJS.Signals): void => {
  if (pid === undefined) return
  if (name !== "SIGCONT") signal(pid, "SIGSTOP")
  for (const each of processesOf(pid)) signal(each, name)
}

/** Ends a program by a signal, also a frozen one, and waits until it has ended. */
export const end = (child: ChildProcess, name: NodeJS.Signals): Effect.Effect<void> =>
  Effect.andThen(
    Effect.sync(() => {
      if (child.pid === undefined || !running.has(child)) return
      // listed before the signal: a child that outlives its parent, and is frozen, is not found any more, and never ends
      const processes = processesOf(child.pid)
      child.kill(name)
      for (const each of processes) signal(each, "SIGCONT")
    }),
    ended(child)
  )

const kill = (child: ChildProcess): Effect.Effect<void> =>
  Effect.andThen(
    Effect.sync(() => running.has(child) && signalAll(child, "SIGKILL")),
    ended(child)
  )

/** Waits until a program prints that it is ready; fails if it ends. */
const untilReady = (child: ChildProcess, { name, ready }: ServerProgram) =>
  Effect.callback<void, ServerError>((resume) => {
    let output = ""
    const onOutput = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-8000)
      if (ready.test(output)) resume(Effect.void)
    }
    child.stdout?.on("data", onOutput)
    child.stderr?.on("data", onOutput)
    child.once("error", (cause) => resume(Effect.fail(toServerError(cause))))
    child.once("close", () => resume(Effect.fail(toServerError(`${name} has ended: ${output}`))))
  })

/** Runs a program to its end and returns its output. */
export const run = (...args: Parameters<typeof launch>): Effect.Effect<string, ServerError> =>
  Effect.acquireUseRelease(
    Effect.sync(() => launch(...args)),
    (child) =>
      Effect.callback<string, ServerError>((resume) => {
        let output = ""
        let errors = ""
        child.stdout?.on("data", (chunk: Buffer) => (output += chunk.toString()))
        child.stderr?.on("data", (chunk: Buffer) => (errors += chunk.toString()))
        child.once("error", (cause) => resume(Effect.fail(toServerError(cause))))
        child.once("close", (code) =>
          resume(code === 0 ? Effect.succeed(output) : Effect.fail(toServerError(errors + output)))
        )
      }),
    (child) => (running.has(child) ? end(child, "SIGKILL") : Effect.void)
  )

/** A server's program. */
export interface ServerProgram {
  /** The program's name in errors. */
  readonly name: string
  readonly ports: Ports
  readonly launch: (port: number) => ChildProcess
  /** Matches the output once the server accepts connections. */
  readonly ready: RegExp
  /** Part of the error if the port is taken. */
  readonly portTaken: string
  /** Waits until the server answers. Default: a ready server answers. */
  readonly untilAnswers?: ((port: number) => Effect.Effect<void, ServerError>) | undefined
  /** The signal that shuts the server down in order despite open connections. Default `SIGTERM`. */
  readonly stop?: NodeJS.Signals | undefined
}

/** Starts a server. Its processes are ended with the scope. */
export const startProgram = Effect.fnUntraced(function* (
  program: ServerProgram
): Effect.fn.Return<ServerProcess, ServerError, Scope.Scope> {
  const { untilAnswers: answers = () => Effect.void, ports, stop = "SIGTERM", portTaken: taken } = program
  let child: ChildProcess | undefined
  const withChild = (use: (child: ChildProcess) => Effect.Effect<void>) =>
    Effect.suspend(() => (child === undefined ? Effect.void : use(child)))
  yield* Effect.addFinalizer(() => withChild((child) => end(child, running.get(child) ?? "SIGKILL")))

  const startAt = (port: number) =>
    Effect.suspend(() => {
      if (child !== undefined && running.has(child)) return Effect.void
      child = program.launch(port)
      return untilReady(child, program)
    })
  const port = yield* Effect.flatMap(freePort(ports), (port) => Effect.as(startAt(port), port)).pipe(
    // another process has taken the port
    Effect.retry({ times: 9, while: ({ message }) => message.includes(taken) })
  )
  yield* answers(port)
  return {
    port,
    kill: withChild(kill),
    stop: withChild((child) => end(child, stop)),
    start: Effect.andThen(startAt(port), answers(port)),
    freeze: withChild((child) => Effect.sync(() => signalAll(child, "SIGSTOP"))),
    thaw: withChild((child) => Effect.sync(() => signalAll(child, "SIGCONT")))
  }
})

// #endregion
