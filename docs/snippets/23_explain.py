from diptych.explain import schema

print(sorted(schema()["properties"]))
