namespace NbdKit.Filters;

// The rates that are kept in files.
public sealed partial class RateFilter
{
    private static readonly TimeSpan LookEvery = TimeSpan.FromSeconds(1);

    // The timestamp of the last look, or 0 before the first; one request at a time looks.
    private long _looked;
    private int _looking;

    private bool IsUpToDate
        => (RateFile is null && ConnectionRateFile is null)
            || (Volatile.Read(ref _looked) is not 0 and var looked && TimeProvider.GetElapsedTime(looked) < LookEvery);

    /// <summary>Looks at the files if it is time to; requests that come meanwhile go on at the old rate.</summary>
    private async ValueTask UpdateAsync(CancellationToken cancellationToken)
    {
        if (IsUpToDate || Interlocked.Exchange(ref _looking, 1) != 0)
        {
            return;
        }
        try
        {
            if (await ReadRateAsync(RateFile, cancellationToken).ConfigureAwait(false) is { } rate && rate != Rate)
            {
                Rate = rate;
            }
            if (await ReadRateAsync(ConnectionRateFile, cancellationToken).ConfigureAwait(false) is { } connectionRate
                && connectionRate != ConnectionRate)
            {
                ConnectionRate = connectionRate;
            }
            Volatile.Write(ref _looked, Math.Max(TimeProvider.GetTimestamp(), 1));
        }
        finally
        {
            Volatile.Write(ref _looking, 0);
        }
    }

    private static async ValueTask<long?> ReadRateAsync(string? path, CancellationToken cancellationToken)
    {
        if (path is null)
        {
            return null;
        }
        try
        {
            char[] text = new char[100];
            using var reader = new StreamReader(path);
            int length = await reader.ReadBlockAsync(text, cancellationToken).ConfigureAwait(false);
            string line = new string(text, 0, length).Split('\n')[0].Trim();
            return NbdParse.Size(line);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            return null;
        }
    }
}
