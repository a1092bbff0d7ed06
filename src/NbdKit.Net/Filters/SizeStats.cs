namespace NbdKit.Filters;

/// <summary>Requests of about one size, as <see cref="StatsFilter"/> counted them.</summary>
/// <param name="Bits">Their sizes are from 2^Bits to 2^(Bits+1)-1 bytes.</param>
/// <param name="Requests">How many there were.</param>
/// <param name="Bytes">How many bytes in all.</param>
/// <param name="Aligned">
/// For each number of trailing zero bits that an offset had, how many offsets had as many or more. Offset 0 has all of them; it
/// makes no entry of its own.
/// </param>
public sealed record SizeStats(int Bits, long Requests, long Bytes, IReadOnlyDictionary<int, long> Aligned);
