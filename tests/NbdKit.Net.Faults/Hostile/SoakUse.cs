namespace NbdKit.Faults.Hostile;

/// <summary>
/// What the process uses of the machine for some time: the middle of several looks, because how many attackers are connected in
/// one moment, with their threads and their payloads, says nothing.
/// </summary>
internal readonly record struct SoakUse(long Heap, long Resident, long Threads, long Descriptors)
{
    private const int Looks = 15;

    public static async Task<SoakUse> MeasureAsync(TimeSpan time)
    {
        var looks = new SoakUse[Looks];
        for (int i = 0; i < Looks; i++)
        {
            await Task.Delay(time / Looks);
            looks[i] = new SoakUse(ProcessUse.HeapBytes(), ProcessUse.ResidentBytes, ProcessUse.Threads, ProcessUse.Descriptors);
        }
        return new SoakUse(Middle(looks, use => use.Heap), Middle(looks, use => use.Resident),
            Middle(looks, use => use.Threads), Middle(looks, use => use.Descriptors));
    }

    private static long Middle(SoakUse[] looks, Func<SoakUse, long> of) => looks.Select(of).Order().ElementAt(Looks / 2);
}
