namespace NbdKit.Filters.Caching;

/// <summary>Consecutive slots of a store, for as many consecutive blocks.</summary>
/// <param name="Slot">The first slot.</param>
/// <param name="Count">Their number; 0 for none.</param>
/// <param name="IsNew">Whether they hold nothing yet.</param>
internal readonly record struct SlotRun(int Slot, int Count, bool IsNew = false);
