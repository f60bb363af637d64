/** The parent's side of the bench's processes. */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Calls } from "./child.ts"
import type { AnyCalls, Reply, Request } from "./serve.ts"
import type { Place, Store } from "./stores.ts"

const callLimitMillis = 180_000
const ownChild = fileURLToPath(new URL("child.ts", import.meta.url))

export interface Process<C extends AnyCalls = Calls> {
  readonly call: <Name extends keyof C & string>(
    name: Name,
    ...args: Parameters<C[Name]>
  ) => Promise<Awaited<ReturnType<C[Name]>>>
  /** Closes the system, then ends the process. */
  readonly close: () => Promise<void>
  /** Ends the process at once, and fails the calls that are not answered. */
  readonly kill: () => Promise<void>
}

/** The running processes, each with a promise that resolves when it has ended. */
const children = new Map<ChildProcess, Promise<void>>()

type Remove = () => void | Promise<void>
/** The functions that remove temporary things, as long as they have not run to their end. */
const removals = new Set<Remove>()

/** Returns a function that runs `remove`. If the program ends earlier, `remove` runs then. */
export const removeAtEnd = (remove: Remove): (() => Promise<void>) => {
  removals.add(remove)
  return async () => {
    await remove()
    removals.delete(remove)
  }
}

const killAll = async () => {
  for (const child of children.keys()) child.kill("SIGKILL")
  await Promise.all(children.values())
}

let leaving = false
const leave = async () => {
  if (leaving) process.exit(1)
  leaving = true
  try {
    await killAll()
    for (const remove of removals) await remove()
  } finally {
    process.exit(1)
  }
}
process.on("exit", () => {
  void killAll()
  for (const remove of removals) void remove()
})
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => void leave())

/**
 * Every process has a large young generation of a fixed size. V8 otherwise sizes it by what survived the first
 * collections, which differs from process to process, and with a small one collecting takes up to a third of the time.
 */
const fixedHeap = ["--min-semi-space-size=64", "--max-semi-space-size=64"]
/** For measurements of memory. */
export const ordinaryHeap = ["--expose-gc"]

/** Starts a process that runs `file`, which serves the calls. */
const start = async <C extends AnyCalls = Calls>(
  file: string,
  args: ReadonlyArray<string>,
  heap: ReadonlyArray<string> = fixedHeap
): Promise<Process<C>> => {
  const child = fork(file, args, {
    execArgv: ["--disable-warning=ExperimentalWarning", ...heap],
    // logs are no part of the tables
    stdio: ["ignore", process.stderr, process.stderr, "ipc"]
  })
  const ended = new Promise<void>((resolve) => child.once("exit", () => resolve()))
  children.set(child, ended)
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>()
  let closing = false

  const failAll = (message: string) => {
    for (const { reject } of waiting.values()) reject(new Error(message))
    waiting.clear()
  }
  child.on("message", (reply: Reply) => {
    const waiter = waiting.get(reply.id)
    waiting.delete(reply.id)
    if ("error" in reply) waiter?.reject(new Error(reply.error))
    else waiter?.resolve(reply.value)
  })
  child.on("exit", (code, signal) => {
    children.delete(child)
    failAll(
      closing
        ? "the process was ended"
        : `a process of the bench ended by itself: ${signal ?? `exit code ${code}`}`
    )
  })

  const reply = (id: number, what: string) =>
    new Promise<unknown>((resolve, reject) => {
      const limit = setTimeout(() => {
        failAll(`no answer to "${what}" in ${callLimitMillis / 1000} s`)
        child.kill("SIGKILL")
      }, callLimitMillis)
      const settled =
        <A>(settle: (value: A) => void) =>
        (value: A) => {
          clearTimeout(limit)
          settle(value)
        }
      waiting.set(id, { resolve: settled(resolve), reject: settled(reject) })
    })

  let lastId = 0
  const send = (name: string, args: ReadonlyArray<unknown>) => {
    const id = ++lastId
    child.send({ id, name, args } satisfies Request)
    return id
  }
  await reply(lastId, "open")
  const call: Process<C>["call"] = (name, ...args) => reply(send(name, args), name) as Promise<never>
  const close = async () => {
    if (closing) return
    closing = true
    await reply(send("close", []), "close").finally(() => child.disconnect())
    await ended
  }
  const kill = async () => {
    closing = true
    child.kill("SIGKILL")
    await ended
  }
  return { call, close, kill }
}

/** Starts a process on a location. It is closed when the measurement ends, if not before. */
export type StartProcess = typeof start

/** Runs `use` with a new location, and removes it afterwards with all processes that `use` has started. */
export const withPlace = async <A>(
  store: Store,
  use: (place: Place, startProcess: StartProcess) => Promise<A>
): Promise<A> => {
  if (leaving) await new Promise<never>(() => {})
  const place = await store.makePlace()
  const remove = removeAtEnd(() => place.remove())
  const started: Array<Pick<Process, "close">> = []
  const startProcess: StartProcess = async <C extends AnyCalls = Calls>(
    file: string,
    args: ReadonlyArray<string>,
    heap?: ReadonlyArray<string>
  ): Promise<Process<C>> => {
    const process = await start<C>(file, args, heap)
    started.push(process)
    return process
  }
  try {
    const result = await use(place, startProcess)
    for (const process of started) await process.close()
    return result
  } finally {
    await killAll()
    await remove()
  }
}

/** The processes of one measurement. For a store of one process, and for a subject without a worker, both are the same. */
export interface Processes {
  readonly producer: Process
  readonly worker: Process
  /** Makes the store do now what it otherwise does some time after many writes, in the middle of a measurement. */
  readonly analyze: () => Promise<void>
}

export interface Subject {
  readonly storeName: string
  readonly store: Store
  readonly system: string
  /** Whether to count its requests to the store. */
  readonly counted?: boolean | undefined
  /** Whether to start no process for a worker. */
  readonly producerOnly?: boolean | undefined
  /** The path of `child.ts`, by default that of this checkout. */
  readonly child?: string
  /** V8's options for the heap. */
  readonly heap?: ReadonlyArray<string>
}

/** Runs `measure` with new processes on a new location, and removes both afterwards. */
export const withProcesses = <A>(
  { child = ownChild, counted, heap, producerOnly, store, storeName, system }: Subject,
  measure: (processes: Processes, place: Place) => Promise<A>
): Promise<A> =>
  withPlace(store, async (place, startProcess) => {
    const args = [storeName, system, place.location, counted ? "count" : ""]
    const producer = await startProcess(child, args, heap)
    const isAlone = store.processes === 1 || producerOnly === true
    const worker = isAlone ? producer : await startProcess(child, args, heap)
    return measure({ producer, worker, analyze: async () => place.analyze?.() }, place)
  })
