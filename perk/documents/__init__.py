"""Questions over passages, with retrieved distractors: HotpotQA and TriviaQA."""
