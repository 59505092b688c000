"""The night's path.

goal -> plan -> validate -> launch -> watch -> evaluate -> decide -> report -> publish
          |         each arrow appends one Event to training_reports/<project>.jsonl      ^
          +-- decide says extend | change | keep | discard | stop ------------------------+

The planner proposes; code disposes. State = fold(events). Resume = replay. Report = render(events).
"""
