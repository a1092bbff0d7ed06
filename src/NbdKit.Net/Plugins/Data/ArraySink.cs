namespace NbdKit.Plugins.Data;

/// <summary>A few bytes in a row.</summary>
internal sealed class ArraySink(byte[] target) : IDataSink
{
    public void Step()
    {
        // A few bytes take few.
    }

    public void Write(long offset, ReadOnlySpan<byte> data) => data.CopyTo(target.AsSpan((int)offset));

    public void Fill(long offset, byte value, long count) => target.AsSpan((int)offset, (int)count).Fill(value);
}
