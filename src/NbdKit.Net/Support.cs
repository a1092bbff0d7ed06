namespace NbdKit;

/// <summary>How well a layer supports an operation: nbdkit's NONE, EMULATE and NATIVE.</summary>
public enum Support
{
    /// <summary>Not at all: clients are not offered the operation.</summary>
    None,

    /// <summary>Offered, but carried out by <see cref="NextContext"/> with other operations of the same layer.</summary>
    Emulate,

    /// <summary>Offered, and the layer's own method carries it out.</summary>
    Native,
}
