namespace NbdKit.Faults.Mutation;

/// <summary>A stream was not taken as it must be.</summary>
internal sealed class MutationException(string message, Exception? inner = null) : Exception(message, inner)
{
    public static void Require(bool condition, string otherwise)
    {
        if (!condition)
        {
            throw new MutationException(otherwise);
        }
    }
}
