/** The child's side of a process of the bench: answers the calls of the parent. */

/** The calls of a process, by name. Arguments and answers are sent as JSON. */
export type AnyCalls = Readonly<Record<string, (...args: never) => unknown>>

export interface Request {
  readonly id: number
  readonly name: string
  readonly args: ReadonlyArray<unknown>
}

export type Reply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string }

/** Answers calls until the parent closes the channel. */
export const serve = (calls: AnyCalls): void => {
  const answer = async ({ id, name, args }: Request) => {
    let reply: Reply
    try {
      const call = calls[name] as ((...args: ReadonlyArray<unknown>) => unknown) | undefined
      if (call === undefined) throw new Error(`no call "${name}"`)
      reply = { id, value: await call(...args) }
    } catch (error) {
      reply = { id, error: error instanceof Error ? (error.stack ?? error.message) : String(error) }
    }
    process.send?.(reply)
  }
  process.on("message", (request: Request) => void answer(request))
  process.on("disconnect", () => process.exit())
  process.on("SIGINT", () => {}) // the parent handles it and closes the channel
  process.send?.({ id: 0, value: "open" } satisfies Reply)
}

/** Returns this process's memory in bytes, after a garbage collection where the process was started with `--expose-gc`. */
export const memory = () => {
  globalThis.gc?.()
  const { external, heapUsed, rss } = process.memoryUsage()
  return { live: heapUsed + external, rss }
}
