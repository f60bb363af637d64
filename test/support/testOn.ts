/** Tests on dedicated servers. */
import { it } from "@effect/vitest"
import { Effect, Logger, type Scope } from "effect"
import type { ServerProcess } from "./ownServers.ts"

/**
 * Runs the body on a server. The server is thawed and started before its clients are closed, since some clients wait for
 * pending answers.
 */
export const withServer = <S extends ServerProcess, E, R>(
  server: S,
  body: (server: S) => Effect.Effect<void, E, R>
): Effect.Effect<void, E, Exclude<R, Scope.Scope>> =>
  Effect.scoped(
    Effect.ensuring(body(server), Effect.ignore(Effect.andThen(server.thaw, server.start)))
    // warnings of lost connections are expected
  ).pipe(Effect.provide(Logger.layer([])))

/**
 * Registers a test in real time on its own server. The start of the server is part of the test and takes ten seconds
 * if five start at once on a busy machine, so the timeout has to include it.
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
