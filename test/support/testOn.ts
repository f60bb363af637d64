/** Tests on servers of their own. */
import { it } from "@effect/vitest"
import { Effect, Logger, type Scope } from "effect"
import type { ServerProcess } from "./ownServers.ts"

/**
 * Runs something on a server. However it ends, the server is there when its clients are closed: some of them wait for
 * the answers that are due to them.
 */
export const withServer = <S extends ServerProcess, E, R>(
  server: S,
  body: (server: S) => Effect.Effect<void, E, R>
): Effect.Effect<void, E, Exclude<R, Scope.Scope>> =>
  Effect.scoped(
    Effect.ensuring(body(server), Effect.ignore(Effect.andThen(server.thaw, server.start)))
    // the warnings of lost connections are expected
  ).pipe(Effect.provide(Logger.layer([])))

/**
 * Tests in real time, each on a server of its own. The start of the server is a part of the test, and takes ten seconds of
 * it where five start at once on a busy machine: the timeout has to have room for that beside the test's own waits.
 */
export const testOn =
  <O, S extends ServerProcess>(
    startServer: (options: O) => Effect.Effect<S, unknown, Scope.Scope>,
    timeoutMillis: number
  ) =>
  <E>(name: string, options: O, body: (server: S) => Effect.Effect<void, E, Scope.Scope>): void =>
    it.live(
      name,
      () => Effect.flatMap(startServer(options), (server) => withServer(server, body)),
      timeoutMillis
    )
