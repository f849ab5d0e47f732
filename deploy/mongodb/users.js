// Creates the user of htxas, or resets its rights and password. Run with mongosh as a user administrator; asks for the password.
const rights = ["htxas", "htxas_fireworks"].flatMap((name) => [
  { role: "readWrite", db: name },
  { role: "dbAdmin", db: name }, // collMod: validators follow the schema
]);
const admin = db.getSiblingDB("admin");
const password = passwordPrompt();
if (admin.getUser("htxas") === null) {
  admin.createUser({ user: "htxas", pwd: password, roles: rights });
} else {
  admin.updateUser("htxas", { pwd: password, roles: rights });
}
