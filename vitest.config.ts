import { defaultServerConditions } from "vite"
import { defineConfig } from "vitest/config"

export default defineConfig({
  // `import … from "chicory"` means src (see "exports" in package.json)
  ssr: { resolve: { conditions: ["chicory-src", ...defaultServerConditions] } },
  test: {
    include: ["test/**/*.test.ts"],
    pool: "forks",
    // they mostly wait, for servers and for time
    maxWorkers: 3,
    reporters: ["default"],
    testTimeout: 30_000,
    hookTimeout: 30_000
  }
})
