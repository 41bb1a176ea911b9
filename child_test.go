package armature_test

const childEnv = "ARMATURE_TEST_CHILD"

func child() {}
