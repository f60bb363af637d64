/** The parent's side of `child.ts`. */
import { type ChildProcess, fork } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Calls, Reply, Request } from "./child.ts"
import type { Store } from "./stores.ts"

const callLimitMillis = 180_000
const ownChild = fileURLToPath(new URL("child.ts", import.meta.url))

export interface Process {
  readonly call: <Name extends keyof Calls>(
    name: Name,
    ...args: Parameters<Calls[Name]>
  ) => Promise<Awaited<ReturnType<Calls[Name]>>>
  /** Lets the system close what it holds, then ends the process. */
  readonly close: () => Promise<void>
}

/** The running processes, with promises of their ends. */
const children = new Map<ChildProcess, Promise<void>>()

type Remove = () => void | Promise<void>
/** Removes what is temporary, and has not been removed yet. */
const removals = new Set<Remove>()

/** Runs `remove` when the program ends, unless the function that this returns has run it to its end before. */
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

const start = async (file: string, args: ReadonlyArray<string>): Promise<Process> => {
  const child = fork(file, args, { execArgv: ["--disable-warning=ExperimentalWarning"] })
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
    if (!closing) failAll(`a process of the bench ended by itself: ${signal ?? `exit code ${code}`}`)
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
  await reply(lastId, "open")
  const call: Process["call"] = (name, ...args) => {
    const id = ++lastId
    child.send({ id, name, args } satisfies Request)
    return reply(id, name) as Promise<never>
  }
  const close = async () => {
    if (closing) return
    closing = true
    await call("close").finally(() => child.disconnect())
    await ended
  }
  return { call, close }
}

/** One measurement's processes. With a store of one process, both are the same. */
export interface Processes {
  readonly producer: Process
  readonly worker: Process
  /** What a store does by itself some time after a lot was written, so that no measurement is cut in two by it. */
  readonly analyze: () => Promise<void>
  /** Adds tasks that are over, and says whether it could. */
  readonly addFinished: (count: number) => Promise<boolean>
}

export interface Subject {
  readonly storeName: string
  readonly store: Store
  readonly system: string
  /** Whether its requests to the store are counted. */
  readonly counted: boolean
  /** The `child.ts` of another checkout, in place of this one's. */
  readonly child?: string
}

/** Runs `measure` with fresh processes on a fresh place; both are gone afterwards. */
export const withProcesses = async <A>(
  { child = ownChild, counted, store, storeName, system }: Subject,
  measure: (processes: Processes) => Promise<A>
): Promise<A> => {
  if (leaving) await new Promise<never>(() => {})
  const place = await store.makePlace()
  const remove = removeAtEnd(() => place.remove())
  const started: Array<Process> = []
  try {
    const args = [storeName, system, place.location, counted ? "count" : ""]
    const producer = await start(child, args)
    started.push(producer)
    const worker = store.processes === 1 ? producer : await start(child, args)
    started.push(worker)
    const result = await measure({
      producer,
      worker,
      analyze: async () => place.analyze?.(),
      addFinished: async (count) => (await place.addFinished?.(system, count)) ?? false
    })
    for (const process of started) await process.close()
    return result
  } finally {
    await killAll()
    await remove()
  }
}
