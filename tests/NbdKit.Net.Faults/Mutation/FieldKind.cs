namespace NbdKit.Faults.Mutation;

/// <summary>What a field of a message means, which decides how it is spoilt.</summary>
internal enum FieldKind
{
    Magic,
    Type,
    Flags,
    Number,
    Length,
    Cookie,
    Text,
    Data,
}
