namespace NbdKit.Filters.Qcow2;

/// <summary>What can be wrong with an image, or with what is wanted from it.</summary>
internal static class Fault
{
    /// <summary>The image contradicts itself.</summary>
    public static NbdException Damaged(string what) => new(NbdError.IoError, $"the qcow2 image is damaged: {what}");

    /// <summary>The image is not one that can be served.</summary>
    public static NbdException Refused(string why) => new(NbdError.InvalidArgument, why);
}
