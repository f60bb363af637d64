/** Starts a program that does not end by itself, prints its process id, and waits to be killed. */
import { launch } from "./ownServers.ts"

const { pid } = launch("sleep", ["600"])
process.stdout.write(`${pid}\n`)
