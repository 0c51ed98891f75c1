package client

// DocumentOf is for tests.
var DocumentOf = documentOf
