namespace NbdKit.Faults.Failing;

/// <summary>When a callback fails.</summary>
internal enum Moment
{
    AtOnce,
    AfterAwait,
    OnAnotherThread,
}
