namespace NbdKit.Tests.Faults;

/// <summary>What is above the disks that lose power.</summary>
internal enum PowerCutStackKind
{
    Plain,
    WriteBack,
    WriteThrough,
    UnsafeCache,
    Cow,
    Mirror,
    WriteBackOverMirror,
}
