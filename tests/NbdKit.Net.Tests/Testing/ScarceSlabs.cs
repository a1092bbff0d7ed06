using NbdKit.Buffers;

namespace NbdKit.Tests.Testing;

/// <summary>Slabs, for as long as a test lets there be memory for them.</summary>
internal sealed class ScarceSlabs : SlabPool
{
    /// <summary>Whether there is no memory for another one.</summary>
    public bool IsEmpty { get; set; }

    protected override Slab Create() => IsEmpty ? throw new OutOfMemoryException() : base.Create();
}
