const { createServer } = require("node:http");

createServer((request, response) => response.end("hello from node\n")).listen(3000, () => {
  console.log("listening on 3000");
});
process.on("SIGTERM", () => process.exit(0));
